"""Find the folder of evaluation sets, which the environment variable VSR_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

from vsr.errors import OptionError

__all__ = ["data_folder", "evaluation_sets"]


def data_folder() -> Path:
    """Return $VSR_DATA: the folder that holds test/ with the evaluation sets, clips/ and peers/.

    Raises OptionError where the variable is not set. No place is guessed: figures measured on a folder that
    happened to lie nearby would pass for those of the set.
    """
    value = os.environ.get("VSR_DATA")
    if not value:
        raise OptionError("VSR_DATA is not set; it names the folder whose test/ holds Set5, Set14, BSD100 and Vid4")
    return Path(value)


def evaluation_sets(named: Path | None, option: str) -> Path:
    """Return the folder that holds Set5, Set14, BSD100 and Vid4: `named`, or else $VSR_DATA/test.

    Args:
        named: the folder that the user gave.
        option: the option that gives it, for the message.

    Raises OptionError where neither is given.
    """
    if named is not None:
        return named
    try:
        return data_folder() / "test"
    except OptionError as error:
        raise OptionError(f"{error}; or name the folder of the sets with {option}") from error
