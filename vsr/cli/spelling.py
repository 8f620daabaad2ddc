"""Put the command line's spelling of options into texts of the library, which name them as Python keywords."""

from __future__ import annotations

import ast
from re import Match
from typing import Any

import click

from vsr.errors import OPTION, VsrError

__all__ = ["Command", "Group", "as_typed"]


class Command(click.Command):
    """A command whose errors name options as they are typed."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VsrError as error:
            error.args = (as_typed(str(error), self), *error.args[1:])
            raise


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def as_typed(text: str, command: click.Command | None = None) -> str:
    """Replace `crf=18` by --crf 18 and the like, for the options that a command has.

    command: the one that runs, unless given.
    """
    if command is None:
        context = click.get_current_context(silent=True)
        if context is None:
            return text
        command = context.command
    options = {p.name: p for p in command.params if isinstance(p, click.Option)}

    def spelled(match: Match[str]) -> str:
        option = options.get(match[1])
        return match[0] if option is None else _spelled(option, match[2])

    return OPTION.sub(spelled, text)


def _spelled(option: click.Option, value: str | None) -> str:
    """An option with a value in Python's form, or without one, as the command line takes it; the first name counts."""
    flag = option.opts[0]
    if value is None:
        return flag
    if option.is_flag:
        return option.secondary_opts[0] if value == "False" and option.secondary_opts else flag
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = value
    if isinstance(parsed, dict):
        return " ".join(f"{flag} {key}={word}" for key, word in parsed.items())
    if isinstance(parsed, list):
        return " ".join(f"{flag} {word}" for word in parsed)
    return f"{flag} {parsed if isinstance(parsed, str) else value}"
