"""Which backend runs a network, and what happens when it cannot."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vsr.backends import openvino_engine, select
from vsr.backends.engine import PRECISIONS, Precision, image_signature
from vsr.backends.installed import describe_auto, describe_backends
from vsr.backends.onnx_model import OnnxFile
from vsr.backends.select import EngineMaker, Place, choose_place
from vsr.backends.torch_engine import TorchEngine
from vsr.errors import EngineError, MissingExtraError, OptionError
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler

CPU = torch.device("cpu")
AUTO, OPENVINO = Place(CPU, "auto"), Place(CPU, "openvino")
LONG = math.inf


class FakeEngine:
    """Another backend's engine, which runs a function."""

    def __init__(self, function: Callable[[Tensor], Tensor], precision: Precision = "fp32") -> None:
        self.name, self.device, self.dtype = f"fake, {precision}", CPU, PRECISIONS[precision]
        self._function = function

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self._function(inputs[0]),)


def _net() -> LumaNet:
    torch.manual_seed(1)
    return LumaNet(4, 1, 2).eval().requires_grad_(False)


X = torch.rand(2, 1, 12, 14, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Have OpenVINO installed, and its engines made by a function, or fail with an error."""
    monkeypatch.setitem(sys.modules, "openvino", sys)

    def play(behaviour: Any) -> None:
        def make(net: Any, signature: Any, *, precision: Precision, accelerator: str, division: object) -> Any:
            if isinstance(behaviour, Exception):
                raise behaviour
            return FakeEngine(behaviour, precision)

        monkeypatch.setattr(openvino_engine, "make_openvino_engine", make)

    return play


def _maker(place: Place, notes: list[str], **options: Any) -> EngineMaker:
    return EngineMaker(_net(), image_signature(1), place, note=notes.append, **({"work": LONG} | options))


def _doubled(x: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(x, scale_factor=2)


def _failing(error: Exception) -> Callable[[Tensor], Tensor]:
    def fail(x: Tensor) -> Tensor:
        raise error

    return fail


# -- the choice ------------------------------------------------------------------------------------------


def test_auto_takes_openvino_on_a_cpu(openvino: Callable[[Any], None], notes: list[str]) -> None:
    openvino(_doubled)
    assert _maker(AUTO, notes).make("fp32").name == "fake, fp32"
    assert notes == []
    assert describe_auto(CPU).startswith("OpenVINO")


def test_auto_leaves_short_jobs_to_pytorch(openvino: Callable[[Any], None], notes: list[str]) -> None:
    openvino(_doubled)
    maker = _maker(AUTO, notes, work=1e9)
    assert isinstance(maker.make("fp32"), TorchEngine)
    assert notes == []


@pytest.mark.parametrize("work", [None, 8 * select._PYTORCH_SPEED * torch.get_num_threads()])
@pytest.mark.parametrize("is_prepared", [False, True])
def test_what_is_prepared_starts_sooner(
    work: float | None,
    is_prepared: bool,
    openvino: Callable[[Any], None],
    notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    openvino(_doubled)
    monkeypatch.setattr(openvino_engine, "is_prepared", lambda net, signature: is_prepared)
    engine = _maker(AUTO, notes, work=work).make("fp32")
    assert isinstance(engine, TorchEngine) is not is_prepared


def test_pytorch_is_taken_where_it_is_asked_for(openvino: Callable[[Any], None], notes: list[str]) -> None:
    openvino(_doubled)
    assert isinstance(_maker(Place(CPU, "pytorch"), notes).make("fp32"), TorchEngine)
    assert notes == []


def test_a_gpu_of_another_maker_is_pytorch_s(openvino: Callable[[Any], None]) -> None:
    openvino(_doubled)
    assert describe_auto(torch.device("mps")) == "PyTorch"


@pytest.mark.parametrize(
    ("device", "backend", "named"),
    [
        ("auto", "onnx", "onnx"),
        ("gpu", "auto", "`backend=openvino`"),
        ("gpu:1", "pytorch", "`backend=openvino`"),
        ("cuda:99", "auto", "cuda:99"),
    ],
)
def test_what_does_not_go_together_is_an_option_error(device: str, backend: str, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        choose_place(device, backend)


def test_an_intel_gpu_that_is_not_there_is_an_option_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", sys)
    monkeypatch.setattr(openvino_engine, "list_devices", lambda: ["cpu", "gpu:0", "gpu:1"])
    assert choose_place("gpu", "openvino") == Place(CPU, "openvino", "GPU")
    assert choose_place("gpu:1", "openvino") == Place(CPU, "openvino", "GPU.1")
    monkeypatch.setattr(openvino_engine, "list_devices", lambda: ["cpu"])
    with pytest.raises(OptionError, match="OpenVINO sees cpu"):
        choose_place("gpu", "openvino")


def test_an_intel_gpu_computes_in_fp16() -> None:
    assert EngineMaker(_net(), image_signature(1), Place(CPU, "openvino", "GPU")).choose_precision() == "fp16"
    assert EngineMaker(_net(), image_signature(1), Place(CPU, "openvino", "GPU")).choose_precision("fp32") == "fp32"


def test_the_backends_are_listed_with_versions() -> None:
    lines = describe_backends()
    assert [line.split(":")[0] for line in lines] == ["backend pytorch", "backend tensorrt", "backend openvino"]
    assert torch.__version__ in lines[0]


# -- what is missing or fails ------------------------------------------------------------------------------


def test_without_openvino_auto_says_so_once_and_takes_pytorch(
    monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    maker = _maker(AUTO, notes)
    assert isinstance(maker.make("bf16"), TorchEngine) and isinstance(maker.make("fp32"), TorchEngine)
    assert len(notes) == 1 and "vsr-enhance[cpu]" in notes[0]
    assert describe_auto(CPU) == "PyTorch"
    assert any("not installed" in line and "openvino" in line for line in describe_backends())


@pytest.mark.parametrize(("backend", "extra"), [("openvino", "cpu"), ("tensorrt", "tensorrt")])
def test_a_missing_backend_that_was_asked_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, backend: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(MissingExtraError, match=rf"vsr-enhance\[{extra}\]"):
        choose_place("auto", backend)


@pytest.mark.parametrize("error", [EngineError("no such layer"), MissingExtraError("the export to ONNX", "onnx")])
def test_a_network_that_openvino_refuses_goes_to_pytorch(
    openvino: Callable[[Any], None], notes: list[str], error: Exception
) -> None:
    openvino(error)
    maker = _maker(AUTO, notes)
    engine = maker.make("fp32")
    torch.testing.assert_close(engine(X)[0], _net()(X))
    maker.make("fp32")
    assert notes == [f"{error}: going on with PyTorch"]


def test_asked_for_openvino_that_refuses_the_network_is_an_error(
    openvino: Callable[[Any], None], notes: list[str]
) -> None:
    openvino(EngineError("no such layer"))
    with pytest.raises(EngineError, match="no such layer"):
        _maker(OPENVINO, notes).make("fp32")


def test_an_engine_that_fails_later_is_replaced_for_good(openvino: Callable[[Any], None], notes: list[str]) -> None:
    openvino(_failing(EngineError("it broke")))
    engine = _maker(AUTO, notes).make("fp32")
    assert engine.name == "fake, fp32"
    for _ in range(2):
        torch.testing.assert_close(engine(X)[0], _net()(X))
    assert engine.name.startswith("PyTorch")
    assert notes == ["it broke: going on with PyTorch"]


def test_asked_for_openvino_that_fails_later_is_an_error(openvino: Callable[[Any], None], notes: list[str]) -> None:
    openvino(_failing(EngineError("it broke")))
    engine = _maker(OPENVINO, notes).make("fp32")
    with pytest.raises(EngineError, match="it broke"):
        engine(X)
    assert notes == []


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
def test_out_of_memory_is_left_to_the_tiling(
    openvino: Callable[[Any], None], notes: list[str], error: Exception
) -> None:
    openvino(_failing(error))
    with pytest.raises(type(error)):
        _maker(AUTO, notes).make("fp32")(X)
    assert notes == []


def test_without_tensorrt_auto_goes_on_with_pytorch_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(select, "TorchEngine", lambda net, device, precision, **_: FakeEngine(_doubled, precision))
    assert _maker(Place(torch.device("cuda"), "auto"), notes).make("fp16").name == "fake, fp16"
    assert len(notes) == 1 and "vsr-enhance[tensorrt]" in notes[0]


def test_tensorrt_that_does_not_build_makes_way_for_pytorch(monkeypatch: pytest.MonkeyPatch, notes: list[str]) -> None:
    tensorrt_engine = importlib.import_module("vsr.backends.tensorrt_engine")

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise EngineError("TensorRT finds no GPU")

    monkeypatch.setitem(sys.modules, "tensorrt", sys)
    monkeypatch.setattr(tensorrt_engine, "make_tensorrt_engine", refuse)
    monkeypatch.setattr(select, "TorchEngine", lambda net, device, precision, **_: FakeEngine(_doubled, precision))
    assert _maker(Place(torch.device("cuda"), "auto"), notes).make("fp16").name == "fake, fp16"
    assert notes == ["TensorRT finds no GPU: going on with PyTorch"]


# -- wrong numbers -----------------------------------------------------------------------------------------


def _upscaler(place: Place, precision: Precision, notes: list[str]) -> Upscaler:
    maker = _maker(place, notes)
    card = ModelCard("fake", "luma", {}, 2, "y", halo=2)
    return Upscaler(
        CheckedNetwork(
            card, maker.make, precision, note=notes.append, make_reference=maker.make_reference, is_fixed=maker.is_fixed
        )
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("wrong", [lambda x: _doubled(x) * math.nan, lambda x: _doubled(x) * 0.5], ids=["nan", "dark"])
def test_wrong_numbers_at_every_precision_go_to_pytorch(
    openvino: Callable[[Any], None], notes: list[str], wrong: Any, precision: Precision
) -> None:
    openvino(wrong)
    upscaler = _upscaler(AUTO, precision, notes)
    torch.testing.assert_close(upscaler.network(X)[0], _net()(X))
    assert isinstance(upscaler.engine, TorchEngine)
    assert "PyTorch" in notes[-1] and len(notes) == (1 if precision == "fp32" else 2)


def test_wrong_numbers_of_a_backend_that_was_asked_for_are_an_error(
    openvino: Callable[[Any], None], notes: list[str]
) -> None:
    openvino(lambda x: _doubled(x) * math.nan)
    with pytest.raises(EngineError, match="'fake'"):
        _upscaler(OPENVINO, "bf16", notes).network(X)[0]


def test_right_numbers_are_left_alone(openvino: Callable[[Any], None], notes: list[str]) -> None:
    net = _net()
    openvino(lambda x: net(x) + 0.5 / 255)
    upscaler = _upscaler(AUTO, "fp32", notes)
    torch.testing.assert_close(upscaler.network(X)[0], net(X) + 0.5 / 255)
    assert notes == []


# -- ONNX files --------------------------------------------------------------------------------------------


def test_an_onnx_file_runs_on_openvino_alone(openvino: Callable[[Any], None], notes: list[str]) -> None:
    openvino(EngineError("no such layer"))
    maker = EngineMaker(OnnxFile(Path("some.onnx")), image_signature(1), AUTO, note=notes.append)
    with pytest.raises(EngineError, match="no such layer"):
        maker.make("fp32")
    with pytest.raises(OptionError, match="ONNX"):
        EngineMaker(OnnxFile(Path("some.onnx")), image_signature(1), Place(CPU, "pytorch"))
    EngineMaker(OnnxFile(Path("some.onnx")), image_signature(1), Place(torch.device("cuda"), "auto"), note=notes.append)
    assert notes == ["an ONNX file runs on OpenVINO: on the CPU"]


# -- several devices -------------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the GPUs that PyTorch sees."""
    names = ["H200", "H200", "L4"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    return names


def test_several_gpus_of_one_kind_take_batches_in_turn(gpus: list[str]) -> None:
    place = choose_place("cuda:1, cuda", "pytorch", takes_several=True)
    assert (str(place.device), [str(each) for each in place.others]) == ("cuda:1", ["cuda:0"])
    gpus.pop()
    assert choose_place("all", "pytorch", takes_several=True).others == (torch.device("cuda:1"),)
    gpus.pop()
    assert choose_place("all", "pytorch", takes_several=True) == Place(torch.device("cuda:0"), "pytorch")


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("cuda:0,cuda:0", "names a GPU twice"),
        ("cuda,cuda:0", "names a GPU twice"),
        ("cuda:0,cpu", "CUDA GPUs alone"),
        ("cuda:0,cuda:3", "sees 3 CUDA GPUs"),
        ("cuda:0,", "unknown"),
        ("cuda:1,cuda:2", "of one kind are needed, not H200 and L4; name those of one kind"),
        ("all", "of one kind are needed, not H200 and L4"),
    ],
)
def test_devices_that_cannot_share_a_video_are_refused(gpus: list[str], device: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        choose_place(device, takes_several=True)


def test_several_devices_are_refused_where_one_is_taken(gpus: list[str]) -> None:
    with pytest.raises(OptionError, match="one device is taken here"):
        choose_place("cuda:0,cuda:1")


def test_all_gpus_where_there_is_none_is_an_error_with_a_remedy() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(OptionError, match="sees no CUDA GPU; `device=auto`"):
        choose_place("all", takes_several=True)
