from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from vsr import errors
from vsr.errors import MissingExtraError, VsrError


def _defined() -> dict[str, type[VsrError]]:
    classes: list[tuple[str, Any]] = inspect.getmembers(errors, inspect.isclass)
    return {name: kind for name, kind in classes if kind.__module__ == errors.__name__}


def _documented() -> dict[str, int]:
    pairs = re.findall(r"(\w+Error)\s+(\d+)\s", errors.__doc__ or "")
    return {name: int(code) for name, code in pairs}


def test_all_names_the_classes_of_the_module_and_what_goes_with_them() -> None:
    assert sorted(errors.__all__) == sorted(["OPTION", *_defined(), "install_hint", "is_disk_full", "reason"])


def test_every_error_can_be_caught_as_vsr_error() -> None:
    assert all(issubclass(kind, VsrError) for kind in _defined().values())


def test_exit_codes_are_distinct_and_never_success() -> None:
    codes = [kind.exit_code for kind in _defined().values() if kind in VsrError.__subclasses__() or kind is VsrError]
    assert len(set(codes)) == len(codes)
    assert {kind.exit_code for kind in _defined().values()} == set(codes)  # a kind of another error has its code
    assert all(0 < code < 126 for code in codes)  # 126 and above belong to the shell and to signals


def test_the_tree_in_the_docstring_tells_the_exit_codes_as_they_are() -> None:
    assert _documented() == {name: kind.exit_code for name, kind in _defined().items()}


def test_missing_extra_names_the_feature_and_the_command_that_installs_it() -> None:
    with pytest.raises(MissingExtraError) as caught:
        raise MissingExtraError("the web page", "serve")
    assert str(caught.value).startswith("the web page ")
    assert "pip install 'vsr-enhance[serve]'" in str(caught.value)  # from an index
    assert "pip install '.[serve]'" in str(caught.value)  # from a checkout
    assert caught.value.extra == "serve"
