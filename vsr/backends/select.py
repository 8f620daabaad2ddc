"""Which backend runs a network: the one asked for, or the fastest there is, with PyTorch behind it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vsr.backends.engine import Engine, Precision, choose_device, choose_precision
from vsr.backends.torch_engine import TorchEngine
from vsr.errors import EngineError, MissingExtraError, OptionError
from vsr.models.onnx_file import OnnxFile

__all__ = ["Backend", "EngineMaker", "Place", "choose_place", "describe_auto", "describe_backends"]

Backend = Literal["auto", "tensorrt", "openvino", "pytorch"]
Note = Callable[[str], None]

_PACKAGES = {"tensorrt": ("TensorRT", "tensorrt"), "openvino": ("OpenVINO", "cpu")}  # title, extra

_FASTEST: dict[str, Backend] = {"cuda": "tensorrt", "cpu": "openvino"}  # by kind of device

# A job that PyTorch has done in less is not worth another backend's start. OpenVINO saves a tenth of the time
# on the lightest networks and half on others; it takes half a second to load, compile and check, and five to
# bring a network to its format, which is kept. In seconds; multiply-accumulates per second and core.
_SHORT_SECONDS, _SHORT_SECONDS_UNPREPARED = 4.0, 40.0
_PYTORCH_SPEED = {"fp32": 50e9, "bf16": 100e9, "fp16": 50e9}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a network runs. device: of its tensors.  accelerator: OpenVINO's name of what computes."""

    device: torch.device
    backend: Backend
    accelerator: str = "CPU"


def choose_place(device: str = "auto", backend: str = "auto") -> Place:
    """The device and backend asked for; "gpu" and "gpu:1" with the backend "openvino" are Intel GPUs.

    Raises OptionError for what is unknown, not there or does not go together, MissingExtraError where
    the backend was asked for and is not installed.
    """
    if backend not in get_args(Backend):
        raise OptionError(f"unknown backend '{backend}'; there are {', '.join(get_args(Backend))}")
    kind: Backend = backend  # type: ignore[assignment]
    if kind in _PACKAGES and not _is_installed(kind):
        raise MissingExtraError(*_PACKAGES[kind])
    if device.partition(":")[0] == "gpu":
        if kind != "openvino":
            raise OptionError(f"device '{device}' is an Intel GPU by OpenVINO: add --backend openvino, or try cuda")
        from vsr.backends.openvino_engine import openvino_device

        return Place(torch.device("cpu"), kind, openvino_device(device))
    if kind == "openvino" and device == "auto":
        return Place(torch.device("cpu"), kind)
    chosen = choose_device(device)
    for name, needed in (("openvino", "cpu"), ("tensorrt", "cuda")):
        if kind == name and chosen.type != needed:
            raise OptionError(f"--backend {name} runs on {needed}, not on {chosen}")
    return Place(chosen, kind)


class EngineMaker:
    """Makes the engines of one network, one per precision, on one backend.

    work: multiply-accumulates of the whole job: "auto" leaves a short one to PyTorch, which starts quickest;
        where nothing is known of it, None, "auto" takes OpenVINO if it has the network prepared already.
    note: called with one line where "auto" has to make do with PyTorch, and why; at most once.
    A backend that was asked for is not replaced: then the errors of making and running surface.
    """

    def __init__(
        self,
        net: nn.Module | OnnxFile,
        channels: int,
        place: Place,
        *,
        label: str = "",
        work: float | None = None,
        note: Note = lambda line: None,
    ) -> None:
        self.place, self._net, self._channels = place, net, channels
        self._label, self._work, self._note = label, work, note
        self._backend = self._resolved()

    @property
    def is_fixed(self) -> bool:
        """Whether PyTorch must not take over."""
        return self.place.backend != "auto" or isinstance(self._net, OnnxFile)

    def choose_precision(self, asked: str = "auto") -> Precision:
        """The precision asked for, or the fastest of the device: fp16 on any GPU."""
        is_gpu = self.place.accelerator != "CPU"
        return choose_precision(torch.device("cuda") if is_gpu else self.place.device, asked)

    def make(self, precision: Precision) -> Engine:
        """Raises EngineError where the backend was asked for and cannot run the network."""
        if self._backend == "auto":
            self._backend = self._fastest(precision)
        if self._backend == "pytorch":
            return self._pytorch(precision)
        if self.is_fixed:
            return self._native(precision)
        try:
            return _Fallback(self._native(precision), lambda: self._pytorch(precision), self._give_up)
        except (EngineError, MissingExtraError) as error:
            self._give_up(str(error))
            return self._pytorch(precision)

    def make_reference(self) -> Engine:
        """The engine that others are measured against: fp32, on PyTorch where that can run the network."""
        if isinstance(self._net, OnnxFile):
            return self._native("fp32")
        return self._pytorch("fp32")

    def _resolved(self) -> Backend:
        if not isinstance(self._net, OnnxFile):
            return self.place.backend
        if self.place.backend not in ("auto", "openvino"):
            raise OptionError(f"--backend {self.place.backend}: an ONNX file runs on OpenVINO")
        if self.place.device.type != "cpu":
            self._note("an ONNX file runs on OpenVINO: on the CPU")
            self.place = Place(torch.device("cpu"), self.place.backend)
        return "openvino"

    def _fastest(self, precision: Precision) -> Backend:
        name = _FASTEST.get(self.place.device.type, "pytorch")
        if name == "pytorch":
            return name
        if not _is_installed(name):
            title, extra = _PACKAGES[name]
            self._give_up(f"{title} is not installed (pip install 'vsr[{extra}]')")
            return "pytorch"
        return "pytorch" if name == "openvino" and self._is_short(precision) else name

    def _is_short(self, precision: Precision) -> bool:
        if self._work is not None:
            seconds = self._work / (_PYTORCH_SPEED[precision] * torch.get_num_threads())
            if not _SHORT_SECONDS <= seconds < _SHORT_SECONDS_UNPREPARED:
                return seconds < _SHORT_SECONDS
        from vsr.backends.openvino_engine import is_prepared

        return not is_prepared(self._net, self._channels)

    def _native(self, precision: Precision) -> Engine:
        if self._backend == "tensorrt":
            from vsr.backends.tensorrt_engine import make_tensorrt_engine

            assert isinstance(self._net, nn.Module)  # see _resolved
            device, label = self.place.device, self._label
            return make_tensorrt_engine(
                self._net, channels=self._channels, precision=precision, device=device, note=self._note, label=label
            )
        from vsr.backends.openvino_engine import make_openvino_engine

        accelerator = self.place.accelerator
        return make_openvino_engine(self._net, channels=self._channels, precision=precision, accelerator=accelerator)

    def _pytorch(self, precision: Precision) -> Engine:
        assert isinstance(self._net, nn.Module)  # see _resolved
        return TorchEngine(self._net, self.place.device, precision)

    def _give_up(self, why: str) -> None:
        if self._backend != "pytorch":
            self._note(f"{why}: going on with PyTorch")
        self._backend = "pytorch"


class _Fallback:
    """An engine that PyTorch takes over from for good when it fails. Out of memory is for the caller to mend."""

    def __init__(self, engine: Engine, make_other: Callable[[], Engine], give_up: Callable[[str], None]) -> None:
        self._engine, self._make_other, self._give_up = engine, make_other, give_up
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        try:
            return self._engine(*inputs)
        except EngineError as error:
            self._give_up(str(error))
            self._engine = self._make_other()
            self.name = self._engine.name
            return self._engine(*inputs)


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def describe_backends() -> list[str]:
    """A line for each backend: its version, or how it is installed."""
    lines = [f"backend pytorch: {torch.__version__}"]
    for name, (title, extra) in _PACKAGES.items():
        if not _is_installed(name):
            lines.append(f"backend {name}: {title} is not installed; pip install 'vsr[{extra}]'")
        else:
            lines.append(f"backend {name}: {_version(name)}{_openvino_devices() if name == 'openvino' else ''}")
    return lines


def describe_auto(device: torch.device) -> str:
    """What "auto" takes on a device, if that can run the network."""
    name = _FASTEST.get(device.type, "pytorch")
    if name == "pytorch" or not _is_installed(name):
        return "PyTorch"
    return "TensorRT" if name == "tensorrt" else "OpenVINO (short jobs: PyTorch)"


def _version(package: str) -> str:
    for distribution in importlib.metadata.packages_distributions().get(package, [package]):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _openvino_devices() -> str:
    from vsr.backends.openvino_engine import list_devices

    try:
        return f", devices {', '.join(list_devices())}"
    except EngineError as error:
        return f", {error}"
