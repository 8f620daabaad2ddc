from __future__ import annotations

from pathlib import Path

import pytest

from vsr.bench.datasets import find_dataset
from vsr.errors import InputError, OptionError
from vsr.export.int8 import measure_drop
from vsr.models.cards import find_card
from vsr.models.weights import load_net, resolve
from vsr.quality.data_folder import data_folder, evaluation_sets


@pytest.fixture(params=["unset", "empty"])
def no_data(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.param == "unset":
        monkeypatch.delenv("VSR_DATA", raising=False)
    else:
        monkeypatch.setenv("VSR_DATA", "")


@pytest.mark.usefixtures("no_data")
def test_a_missing_variable_is_an_error_that_names_it_and_the_option() -> None:
    with pytest.raises(OptionError, match=r"VSR_DATA is not set.*Set5"):
        data_folder()
    with pytest.raises(OptionError, match=r"VSR_DATA is not set.*--data"):
        evaluation_sets(None, "--data")


def test_a_folder_that_is_named_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VSR_DATA", str(tmp_path / "variable"))
    assert evaluation_sets(tmp_path / "named", "--data") == tmp_path / "named"
    assert evaluation_sets(None, "--data") == tmp_path / "variable" / "test"
    with pytest.raises(InputError, match="variable"):
        find_dataset("set5")


@pytest.mark.usefixtures("no_data")
def test_a_known_set_asks_for_the_variable_or_the_option() -> None:
    with pytest.raises(OptionError, match=r"VSR_DATA.*`data`"):
        find_dataset("set5")


@pytest.mark.usefixtures("no_data")
def test_a_folder_of_ones_own_needs_no_variable(tmp_path: Path) -> None:
    (tmp_path / "one.png").touch()
    assert [clip.name for clip in find_dataset(str(tmp_path)).clips]


@pytest.mark.usefixtures("no_data")
def test_int8_without_set5_asks_for_the_variable_or_validation() -> None:
    net = load_net(*resolve("nano"))
    with pytest.raises(OptionError, match=r"VSR_DATA.*`validation`"):
        measure_drop(find_card("nano"), net, net)
