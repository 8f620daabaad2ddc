"""What "auto" takes on a CPU: by measurements, which a pretended meter gives here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vsr.backends import openvino_engine, select, tuning
from vsr.backends.engine import PRECISIONS, Precision, image_signature
from vsr.backends.select import EngineMaker, Place
from vsr.backends.tuning import Candidate, Division, Machine, Tuning, divisions, list_tunings, take_turns
from vsr.errors import EngineError
from vsr.events import Note
from vsr.models.cards import find_card
from vsr.models.nets import LumaNet
from vsr.models.quantization import quantized
from vsr.pipeline.loading import ModelOptions, load_card_and_net, upscaler_of_net

CPU = torch.device("cpu")
AUTO = Place(CPU, "auto")
LONG = 1e15


class Meter:
    """Gives the seconds that a test wants, and writes down what was measured."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = {name.replace("_", " "): value for name, value in seconds.items()}
        self.measured: list[str] = []

    def __call__(self, runs: Mapping[Candidate, Callable[[], object]]) -> dict[Candidate, float]:
        self.measured += map(str, runs)
        return {candidate: self.seconds[str(candidate)] for candidate in runs}


class FakeEngine:
    division: Division | None = None

    def __init__(self, precision: Precision) -> None:
        self.name, self.device, self.dtype = f"OpenVINO fake, {precision}", CPU, PRECISIONS[precision]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (torch.nn.functional.interpolate(inputs[0], scale_factor=2),)


def _make_fake(
    net: Any, signature: Any, *, precision: Precision, accelerator: str = "CPU", division: Division | None = None
) -> FakeEngine:
    engine = FakeEngine(precision)
    engine.division = division
    return engine


@pytest.fixture(autouse=True)
def _two_backends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A CPU with bf16, an OpenVINO that computes at once, and an empty folder."""
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path))
    monkeypatch.setattr(select, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(select, "is_installed", lambda package: True)
    monkeypatch.setattr(openvino_engine, "make_openvino_engine", _make_fake)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # which there is nothing to divide of
    monkeypatch.setattr(openvino_engine, "is_prepared", lambda net, signature: False)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """An AVX-512 machine: bf16 is slow, int8 fast."""
    meter = Meter(pytorch_fp32=11.0, pytorch_bf16=17.0, openvino_fp32=10.0, openvino_bf16=15.0, openvino_int8=4.0)
    monkeypatch.setattr(tuning, "take_turns", meter)
    return meter


def _net() -> LumaNet:
    torch.manual_seed(5)
    return LumaNet(8, 2, 2).eval().requires_grad_(False)


def _maker(notes: list[str] | None = None, *, int8: bool = False, place: Place = AUTO, **options: Any) -> EngineMaker:
    note: Any = (notes if notes is not None else []).append
    more = {"work": LONG, "load_quantized": lambda: quantized(_net())} | options
    maker = EngineMaker(_net(), image_signature(1), place, label="tiny", note=note, **more)
    maker.is_int8_proven = int8
    return maker


def test_auto_takes_what_was_measured_to_be_the_fastest(meter: Meter) -> None:
    notes: list[str] = []
    maker = _maker(notes)
    assert maker.choose_precision() == "fp32"
    assert maker.make("fp32").name == "OpenVINO fake, fp32"
    assert meter.measured == ["pytorch fp32", "pytorch bf16", "openvino fp32", "openvino bf16"]
    assert notes == [
        "measured on this machine, and kept: openvino fp32 ×1.00, pytorch fp32 ×1.10, openvino bf16 ×1.50, "
        "pytorch bf16 ×1.70"
    ]


def test_a_job_too_short_for_a_new_format_is_told_what_would_bring_it(meter: Meter) -> None:
    notes: list[str] = []
    a_thread = select._PYTORCH_SPEED  # multiply-accumulates a second
    assert _maker(notes, work=10 * a_thread).make(_maker(notes, work=10 * a_thread).choose_precision())
    assert meter.measured == ["pytorch fp32", "pytorch bf16"]
    assert notes[-1] == (
        "OpenVINO is left out, as the job is over before the network is brought to its format; "
        "'vsr engine tune tiny' does that once, for all jobs"
    )
    said = len(notes)
    _maker(notes, work=10 * a_thread).choose_precision()
    assert len(notes) == said, "once, as the measurements are kept"
    assert _maker(notes, work=20 * a_thread).choose_precision() == "fp32"
    assert meter.measured[2:] == ["pytorch fp32", "pytorch bf16", "openvino fp32", "openvino bf16"]


def test_int8_is_taken_where_the_card_proves_it_and_named(meter: Meter) -> None:
    maker = _maker(int8=True)
    assert maker.choose_precision() == "int8"
    assert maker.make("int8").name == "OpenVINO fake, int8"
    assert _maker(int8=False).choose_precision() == "fp32", "measured for another job, and not allowed for this one"


def test_the_fastest_division_of_the_cores_is_taken_and_kept(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    seconds = {"1 at a time by 14": 4.0, "2 at a time by 14": 2.0, "4 at a time by 14": 1.9, "8 at a time by 14": 2.6}
    for text, value in (seconds | {"2 at a time by 16": 2.1}).items():
        meter.seconds[f"openvino int8 {text} threads"] = value * 4  # for eight frames, as long as two of the others
    maker = _maker(int8=True)
    assert maker.choose_precision() == "int8"
    assert meter.measured[5:] == [name for name in meter.seconds if "at a time" in name]
    chosen = maker.make("int8")._engine  # type: ignore[attr-defined]
    assert chosen.division == Division(4, 14)
    meter.measured.clear()
    again = _maker(int8=True)
    assert again.choose_precision() == "int8" and meter.measured == []
    assert again.make("int8")._engine.division == Division(4, 14)  # type: ignore[attr-defined]
    assert list_tunings()["tiny"].startswith("openvino int8 4 at a time by 14 threads ×1.00, ")


def test_divisions_go_from_all_cores_on_one_frame_to_a_frame_for_each_few() -> None:
    assert divisions(1) == []
    assert divisions(2) == [Division(1, 2), Division(2, 2)]
    assert divisions(4) == [Division(1, 4), Division(2, 4), Division(4, 4)]
    assert all(1 <= each.frames <= each.threads <= 64 for each in divisions(64)) and len(divisions(64)) <= 5


def test_the_result_is_kept_for_this_machine_and_these_versions(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert _maker(int8=True).choose_precision() == "int8"
    assert len(meter.measured) == 5, "measured once"
    here = Machine.here()
    for other in (replace(here, processor="another"), replace(here, threads=99), replace(here, openvino="2030.1")):
        meter.measured.clear()
        monkeypatch.setattr(Machine, "here", lambda other=other: other)
        _maker(int8=True).choose_precision()
        assert len(meter.measured) == 5, other


def test_of_the_nearly_fastest_the_most_exact_is_taken(meter: Meter) -> None:
    meter.seconds |= {"openvino int8": 9.6, "openvino bf16": 9.7}
    assert _maker(int8=True).choose_precision() == "fp32"
    meter.seconds |= {"openvino int8": 9.4}
    assert _maker(int8=True).measure().fastest([Candidate("openvino", each) for each in ("fp32", "int8")]) == (
        Candidate("openvino", "int8")
    )


def test_a_precision_and_a_backend_that_were_asked_for_are_not_measured_against_others(meter: Meter) -> None:
    assert _maker(int8=True).choose_precision("bf16") == "bf16"
    assert meter.measured == []
    assert _maker(place=Place(CPU, "pytorch"), int8=True).choose_precision() == "fp32"
    assert meter.measured == ["pytorch fp32", "pytorch bf16"]


def test_a_short_job_measures_nothing_and_uses_what_is_known(meter: Meter) -> None:
    meter.seconds |= {"pytorch bf16": 5.0}
    assert _maker(work=1e6).choose_precision() in ("fp32", "bf16")
    assert meter.measured == [], "no measurement is worth so short a job"
    _maker().measure()
    maker = _maker(work=1e6)
    assert maker.choose_precision() == "bf16" and maker.make("bf16").name.startswith("PyTorch")


def test_a_candidate_that_fails_is_named_and_left_out(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise EngineError("no such layer")

    monkeypatch.setattr(openvino_engine, "make_openvino_engine", fail)
    notes: list[str] = []
    maker = _maker(notes)
    assert maker.choose_precision() == "fp32" and maker.make("fp32").name.startswith("PyTorch")
    assert "openvino bf16 is not measured, as it fails (no such layer)" in notes


@pytest.mark.parametrize("content", ["", "{", '{"seconds": {"abacus fp32": 1}}', '{"seconds": 3, "measured": ""}'])
def test_a_damaged_file_is_measured_anew(meter: Meter, content: str) -> None:
    path = _maker().measure().path
    path.write_text(content)
    meter.measured.clear()
    assert _maker().choose_precision() == "fp32" and len(meter.measured) == 4
    assert json.loads(path.read_text())["model"] == "tiny"


def test_a_folder_that_cannot_be_written_costs_a_measurement_a_job(
    meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path / "file"))
    for _ in range(2):
        assert _maker().choose_precision() == "fp32"
    assert len(meter.measured) == 8


def test_what_was_measured_is_listed_from_the_fastest_on(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_tunings() == {}
    _maker(int8=True).measure()
    assert list_tunings()["tiny"].startswith("openvino int8 ×1.00, openvino fp32 ×2.50, pytorch fp32 ×2.75")
    monkeypatch.setattr(Machine, "here", lambda: Machine("another", 1, "", ""))
    assert list_tunings() == {}


def test_a_resumed_job_keeps_backend_and_precision_whatever_is_measured_by_then(meter: Meter) -> None:
    """The journal has both; "auto" has found others to be faster since."""
    card, net = load_card_and_net("nano")
    upscaler = upscaler_of_net(card, net, ModelOptions(), place=AUTO, num_pixels=1e12)
    assert upscaler.engine.name.startswith("OpenVINO") and upscaler.network.backend == "openvino"
    upscaler.network.use_precision("bf16", "pytorch")
    assert upscaler.engine.name.startswith("PyTorch") and upscaler.precision == "bf16"
    assert upscaler.network.backend == "pytorch" and upscaler.network.is_checked


def test_a_backend_that_was_asked_for_stays_when_a_job_is_resumed(meter: Meter) -> None:
    maker = _maker(place=Place(CPU, "openvino"))
    maker.use_backend("pytorch")
    assert maker.make("fp32").name.startswith("OpenVINO")


def test_the_cards_of_shipped_models_say_where_int8_is_proven() -> None:
    fast = find_card("fast")
    assert fast.is_int8_proven
    assert not replace(fast, figures=fast.figures | {"BSD100 int8": fast.figures["BSD100"] - 0.04}).is_int8_proven
    assert not replace(fast, figures={"Set5": 31.0, "Set5 int8": 31.0}).is_int8_proven
    assert not replace(fast, int8_weights="").is_int8_proven


def test_the_meter_runs_each_candidate_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the meter itself
    order: list[str] = []
    runs = {Candidate("pytorch", each): (lambda each=each: order.append(each)) for each in ("fp32", "bf16")}
    seconds = take_turns(runs)  # type: ignore[arg-type]
    assert seconds.keys() == runs.keys() and all(0 <= value < 60 for value in seconds.values())
    assert order[:6] == ["fp32", "bf16"] * 3


def test_tiles_are_large_enough_to_measure_and_small_enough_to_be_quick() -> None:
    sides = [tuning._tile_side(num_weights) for num_weights in (0, 1_000, 60_000, 1_500_000, 10**9)]
    assert sides == sorted(sides, reverse=True) and sides[0] <= 192 and sides[-1] == 48


def test_a_tuning_reads_what_it_wrote(meter: Meter) -> None:
    _maker(int8=True).measure()
    again = Tuning(_net(), image_signature(1), "tiny")
    assert {str(each): value for each, value in again.seconds.items()} == meter.seconds


def test_notes_are_of_engines(meter: Meter) -> None:
    notes: list[Any] = []
    _maker(notes).choose_precision()
    assert isinstance(notes[0], Note) and notes[0].code == "engine"
