"""`vsr serve`: answer requests over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vsr.cli.options import BACKENDS, PRECISIONS
from vsr.cli.spelling import Command

__all__ = ["serve"]


def _limits(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Turn NAME=NUMBER options into a dictionary."""
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        if not number.isdecimal():
            raise click.BadParameter(f"{value!r} is not NAME=NUMBER")
        found[name] = int(number)
    return found


@click.command(cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--allow-public", is_flag=True, help="Listen beyond this machine without a token.")
@click.option("--name", "hosts", multiple=True, metavar="HOST", help="Name by which clients may call; repeatable.")
@click.option(
    "--root", "roots", multiple=True, type=click.Path(path_type=Path), metavar="FOLDER",
    help="Folder whose files a job may name by path; repeatable.",
)  # fmt: skip
@click.option("--state", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder of jobs, uploads and results.")
@click.option("--model", default="srgan", show_default=True, help="Of images, where a request names none.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS), help="As 'vsr enhance'.")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(PRECISIONS), help="As 'vsr enhance'.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the networks.  [default: all cores]")
@click.option("--keep-hours", default=24.0, show_default=True, type=float, help="After which results are removed.")
@click.option("--limit", callback=_limits, multiple=True, metavar="NAME=NUMBER", help="A limit; see docs/serve.md.")
def serve(hosts: tuple[str, ...], roots: tuple[Path, ...], limit: dict[str, int], **values: Any) -> None:
    """Serve images and videos over HTTP: REST, TensorFlow Serving's dialect, and a web page.

    Clients must send the token that the environment variable VSR_TOKEN holds, if it is set.
    """
    import os

    from vsr.errors import OptionError
    from vsr.serve.server import check_extra, run_server
    from vsr.serve.settings import TOKEN_VARIABLE, Limits, Settings

    check_extra()
    unknown = set(limit) - set(Limits.__dataclass_fields__)
    if unknown:
        raise OptionError(f"`limit={unknown.pop()}`: unknown; there are {', '.join(Limits.__dataclass_fields__)}")
    keep = int(values.pop("keep_hours") * 3600)
    given = {name: value for name, value in values.items() if value is not None}
    token = os.environ.get(TOKEN_VARIABLE)
    run_server(Settings(token=token, hosts=hosts, roots=roots, retention_seconds=keep, limits=Limits(**limit), **given))
