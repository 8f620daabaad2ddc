"""Options in texts of the library, as the command line spells them."""

from __future__ import annotations

import pickle

import click
import pytest

from vsr.cli.spelling import Command, as_typed
from vsr.errors import OptionError
from vsr.events import Note, NoteCode


@click.command(cls=Command)
@click.option("--scale", type=float)
@click.option("-y/-n", "--overwrite/--no-overwrite", "overwrite")
@click.option("--resume/--no-resume", default=None)
@click.option("-map", "--map", "maps", multiple=True)
@click.option("--encoder-option", "encoder_options", multiple=True)
def command(**values: object) -> None:
    """Fail as the library does."""
    raise OptionError("`scale=40`: must lie between 1 and 16")


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("`scale=40`: must lie between 1 and 16", "--scale 40: must lie between 1 and 16"),
        ("out.mp4: exists already; `overwrite=True` overwrites it", "out.mp4: exists already; -y overwrites it"),
        ("`resume`: not here; `resume=False` starts anew", "--resume: not here; --no-resume starts anew"),
        ('`maps=["0:v", "0:a"]`: none', "-map 0:v -map 0:a: none"),
        ('try `encoder_options={"tune": "lossless"}`', "try --encoder-option tune=lossless"),
        ("`layout`: is no option of this command", "`layout`: is no option of this command"),
        ("`a`b.mp4: a file", "`a`b.mp4: a file"),
    ],
)
def test_options_are_named_as_they_are_typed(text: str, typed: str) -> None:
    assert as_typed(text, command) == typed


def test_a_commands_errors_name_its_flags_and_the_librarys_its_keywords() -> None:
    with pytest.raises(OptionError, match=r"^--scale 40: must") as error:
        command.main([], standalone_mode=False)
    assert type(error.value) is OptionError
    assert OptionError("`scale=40`: must lie between 1 and 16").option == "scale"
    assert OptionError("two files are needed").option is None


def test_a_note_is_its_text_and_survives_a_trip_to_another_process() -> None:
    note = Note(NoteCode.DAMAGE, "a.mp4: 3 damaged packets")
    copy = pickle.loads(pickle.dumps(note))
    assert (copy, copy.code) == ("a.mp4: 3 damaged packets", "damage")
