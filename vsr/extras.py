"""Import optional libraries so that one that is missing or broken is named as such."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vsr.errors import BrokenExtraError, MissingExtraError, VsrError

__all__ = ["importing", "is_installed"]


def is_installed(package: str) -> bool:
    """Tell whether a package is there, without importing it."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


@contextmanager
def importing(feature: str, extra: str, *packages: str) -> Iterator[None]:
    """Turn a failure of the import statements inside into an error that names the remedy.

    A library that was built for another version of what it needs raises errors of many kinds at its import.

    Args:
        feature: that needs the packages, such as "the export to ONNX".
        extra: of `pip install` that brings them.
        packages: names by which they are imported.

    Raises MissingExtraError where one is not installed, and its subclass BrokenExtraError where one does not load.
    """
    if not all(is_installed(package) for package in packages):
        raise MissingExtraError(feature, extra)
    try:
        yield
    except VsrError:
        raise
    except Exception as error:
        raise BrokenExtraError(feature, extra, packages, error) from error
