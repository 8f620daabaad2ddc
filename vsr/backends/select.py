"""Choose the backend that runs a network: the one asked for, or the fastest, with PyTorch to fall back to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeGuard, get_args

import torch
from torch import Tensor, nn

from vsr.backends.compiled import Compiler, compile_for_gpu
from vsr.backends.cuda_runner import DeviceRunner
from vsr.backends.engine import (
    Engine,
    Launch,
    Precision,
    Signature,
    choose_device,
    choose_precision,
    cpu_has_bf16,
    make_launch,
    release_buffers,
    safer_precisions,
    state_dtype,
)
from vsr.backends.installed import FASTEST, PACKAGES, Backend
from vsr.backends.onnx_model import OnnxFile
from vsr.backends.torch_engine import TorchEngine
from vsr.backends.tuning import Candidate, Division, Tuning, measure_divisions, measure_engines
from vsr.errors import EngineError, MissingExtraError, OptionError, install_hint
from vsr.events import Note, NoteCode, OnNote
from vsr.extras import is_installed
from vsr.models.quantization import is_quantized, without_quantization

__all__ = ["EngineMaker", "Place", "choose_place"]

# A job that PyTorch has done in less is not worth another backend's start. OpenVINO saves a tenth of the time
# on the lightest networks, a third on others and more in int8; it takes half a second to load, compile and check, and
# four to bring a network to its format, which is kept. In seconds; multiply-accumulates per second and core.
_SHORT_SECONDS, _SHORT_SECONDS_UNPREPARED = 4.0, 15.0
_WORK_OF_A_BUILD = 3e14  # multiply-accumulates: half a minute of light networks on a large GPU, minutes on a small one
_LONG_WORK = 6e15  # multiply-accumulates of a job that keeps a large GPU busy for minutes
_PYTORCH_SPEED = 50e9  # multiply-accumulates per second and thread, in fp32


@dataclass(frozen=True, slots=True)
class Place:
    """Name what runs a network.

    device: of its tensors.  accelerator: OpenVINO's name of the processor that computes.
    others: devices of the same kind that take batches in turn with it.
    """

    device: torch.device
    backend: Backend
    accelerator: str = "CPU"
    others: tuple[torch.device, ...] = ()


def choose_place(device: str = "auto", backend: str = "auto", *, takes_several: bool = False) -> Place:
    """Choose the device and backend asked for; "gpu" and "gpu:1" with the backend "openvino" are Intel GPUs.

    Raises OptionError for what is unknown, not there or does not go together, MissingExtraError where
    the backend was asked for and is not installed.

    Args:
        takes_several: whether the device may be several CUDA GPUs, "cuda:0,cuda:1" or "all".
    """
    if device == "all" or "," in device:
        first, *others = _several_gpus(device, takes_several)
        return replace(choose_place(str(first), backend), others=tuple(others))
    if backend not in get_args(Backend):
        raise OptionError(f"`backend={backend}`: unknown; there are {', '.join(get_args(Backend))}")
    kind: Backend = backend  # type: ignore[assignment]
    if kind in PACKAGES and not is_installed(kind):
        raise MissingExtraError(*PACKAGES[kind])
    if device.partition(":")[0] == "gpu":
        if kind != "openvino":
            raise OptionError(f"`device={device}`: an Intel GPU by OpenVINO; add `backend=openvino`, or try cuda")
        from vsr.backends.openvino_engine import openvino_device

        return Place(torch.device("cpu"), kind, openvino_device(device))
    if kind == "openvino" and device == "auto":
        return Place(torch.device("cpu"), kind)
    chosen = choose_device(device)
    for name, needed in (("openvino", "cpu"), ("tensorrt", "cuda")):
        if kind == name and chosen.type != needed:
            raise OptionError(f"`backend={name}`: runs on {needed}, not on {chosen}")
    return Place(chosen, kind)


def _several_gpus(asked: str, takes_several: bool) -> list[torch.device]:
    """Return the CUDA GPUs that an option names. Raises OptionError where batches cannot go in turn to them."""
    if not takes_several:
        raise OptionError(
            f"`device={asked}`: one device is taken here; several take the batches of a video in turn in "
            "'vsr enhance' in one process"
        )
    if asked == "all":
        devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        if not devices:
            raise OptionError("`device=all`: this PyTorch sees no CUDA GPU; `device=auto` takes what there is")
    else:
        devices = [choose_device(name.strip()) for name in asked.split(",")]
    if any(each.type != "cuda" for each in devices):
        raise OptionError(f"`device={asked}`: batches go in turn to CUDA GPUs alone")
    devices = [torch.device("cuda", each.index or 0) for each in devices]
    if len(set(devices)) < len(devices):
        raise OptionError(f"`device={asked}`: names a GPU twice")
    kinds = sorted({torch.cuda.get_device_name(each) for each in devices})
    if len(kinds) > 1:  # whose kernels round differently: a frame would depend on the device that it falls to
        remedy = "name those of one kind, or leave `device` out and take `workers`"
        raise OptionError(f"`device={asked}`: GPUs of one kind are needed, not {' and '.join(kinds)}; {remedy}")
    return devices


@dataclass(frozen=True, slots=True)
class _Work:
    """Multiply-accumulates of a whole job; None where nothing is known of it."""

    macs: float | None

    @property
    def seconds(self) -> float | None:
        """Return about how long PyTorch takes on this CPU; None where nothing is known."""
        return None if self.macs is None else self.macs / (_PYTORCH_SPEED * torch.get_num_threads())

    @property
    def is_short(self) -> bool:
        """Return True if it is known to be over before anything is worth a start."""
        return self.seconds is not None and self.seconds < _SHORT_SECONDS

    @property
    def is_worth_a_build(self) -> bool:
        """Return True if it is known to be so long that TensorRT wins back the time of a build."""
        return self.macs is not None and self.macs >= _WORK_OF_A_BUILD

    def is_too_short(self, net: nn.Module, signature: Signature) -> bool:
        """Tell whether it is over before OpenVINO is worth its start, which takes longer for a net not prepared."""
        if self.seconds is not None and not _SHORT_SECONDS <= self.seconds < _SHORT_SECONDS_UNPREPARED:
            return self.is_short
        from vsr.backends.openvino_engine import is_prepared

        return not is_prepared(net, signature)


class EngineMaker:
    """Make the engines of one network, one per precision, on one backend.

    A backend that was asked for is not replaced: then the errors of making and running surface. PyTorch
    computes no integers: where "auto" falls back to it, int8 becomes the next safer precision.
    is_int8_proven: to be set where int8 loses so little quality that "auto" may take it.
    """

    def __init__(
        self,
        net: nn.Module | OnnxFile,
        signature: Signature,
        place: Place,
        *,
        label: str = "",
        work: float | None = None,
        note: OnNote = lambda line: None,
        load_quantized: Callable[[], nn.Module] | None = None,
    ) -> None:
        """Choose the backend as far as that is possible before a precision is known.

        Args:
            label: the model's name, for messages.
            work: multiply-accumulates of the whole job: "auto" leaves a short one to PyTorch, which starts quickest;
                where nothing is known of it, None, "auto" takes OpenVINO if it has the network prepared already.
            note: called with one line where "auto" falls back to PyTorch, and why; at most once.
            load_quantized: gives the network for int8, or raises an error of `vsr.errors` that says why there is none.
        """
        self.place, self._net, self._signature = place, net, signature
        self._label, self._work, self._note = label, _Work(work), note
        self._load_quantized, self.is_int8_proven = load_quantized, False
        self._made: dict[Candidate, Engine] = {}  # when it was measured, and not used yet
        self._quantized = net if _is_quantized(net) else None
        self._is_int8 = False  # what was made last
        self._division: Division | None = None  # that was measured to be the fastest
        self._backend = self._resolved()

    @property
    def is_fixed(self) -> bool:
        """Tell whether PyTorch must not take over."""
        return self.place.backend != "auto" or isinstance(self._net, OnnxFile)

    def choose_precision(self, asked: str = "auto") -> Precision:
        """Return the precision asked for, or the fastest of the device: fp16 on any GPU, what was measured on a CPU.

        int8 where it is asked for, or for a network that was trained for it. Raises OptionError where it is
        asked for and the network or the backend is not for it.
        """
        is_gpu = self.place.accelerator != "CPU"
        device = torch.device("cuda") if is_gpu else self.place.device
        if asked == "auto" and _is_quantized(self._net):
            return "int8" if self._has_integers() else "fp32"
        if asked == "int8" and not self._takes_int8():
            asked = "auto"
        if asked == "auto" and device.type == "cpu" and isinstance(self._net, nn.Module):
            return self._measured() or choose_precision(device)
        return choose_precision(device, asked)

    def use_backend(self, backend: str) -> None:
        """Go on with the backend that an earlier run of the same job has taken, unless one was asked for."""
        if not self.is_fixed and backend in get_args(Backend):
            self._backend = backend  # type: ignore[assignment]

    def measure(self) -> Tuning:
        """Measure all that "auto" may choose on this CPU, whatever was measured before, and keep it."""
        tuning = Tuning(_module(self._net), self._signature, self._label)
        candidates = self._candidates()
        self._made = measure_engines(tuning, candidates, self._make_candidate, self._signature, self._note)
        candidates = [candidate for candidate in candidates if candidate in tuning.seconds]
        if candidates:
            chosen = tuning.fastest(candidates)
            measure_divisions(tuning, chosen, self._make_candidate, self._signature, self._note)
        return tuning

    def make(self, precision: Precision) -> Engine:
        """Make an engine. Raises EngineError where the backend was asked for and cannot run the network."""
        self._is_int8 = precision == "int8"
        if self._backend == "auto":
            self._backend = self._fastest(precision)
        if self._backend == "pytorch":
            return self._pytorch(precision, self._compiler())
        if self.is_fixed:
            return self._native(precision)
        try:
            engine = self._native(precision)
            return _Fallback(engine, lambda: self._pytorch(precision, self._compiler()), self._give_up)
        except (EngineError, MissingExtraError) as error:
            self._give_up(str(error))
            return self._pytorch(precision, self._compiler())

    def make_reference(self) -> Engine:
        """Make the engine that the one made last is compared with: fp32, on PyTorch where that can run the network.

        For int8 that is the same integers in fp32: their cost was measured, and accepted, when they were made.
        """
        if isinstance(self._net, OnnxFile):
            return self._native("fp32")
        if self._is_int8:
            return TorchEngine(self._integers(), self.place.device, "fp32")
        return self._pytorch("fp32")

    def _measured(self) -> Precision | None:
        """Take the fastest backend and precision of this CPU, and measure where the job is worth it; None for not."""
        candidates, tuning = self._candidates(), Tuning(_module(self._net), self._signature, self._label)
        if tuning.lacks(candidates):
            if self._work.is_short:
                return None
            self._made = measure_engines(tuning, candidates, self._make_candidate, self._signature, self._note)
            if self._backend == "auto" and is_installed("openvino"):
                _note_left_out(candidates, self._label, self._note)
            candidates = [candidate for candidate in candidates if candidate in tuning.seconds]
        if not candidates:
            return None
        chosen = tuning.fastest(candidates)
        self._made = {candidate: engine for candidate, engine in self._made.items() if candidate == chosen}
        if self._backend == "auto":
            self._backend = chosen.backend
        if not (self._work.is_short or tuning.knows_division(chosen, self._signature)):
            made = measure_divisions(tuning, chosen, self._make_candidate, self._signature, self._note)
            self._made = {chosen: made} if made else self._made
        self._division = tuning.fastest_division(chosen)
        return chosen.precision

    def _candidates(self) -> list[Candidate]:
        """List what "auto" may choose for this job on a CPU; a backend that it is too short for is none."""
        floats: tuple[Precision, ...] = ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)
        found = [Candidate("pytorch", each) for each in floats] if self._backend in ("auto", "pytorch") else []
        is_auto = self._backend == "auto"
        if self._backend == "openvino" or (is_auto and is_installed("openvino")):
            is_worth_it = not (is_auto and self._work.is_too_short(_module(self._net), self._signature))
            found += [Candidate("openvino", each) for each in floats if is_worth_it]
            if self.is_int8_proven and not (is_auto and self._work.is_too_short(self._integers(), self._signature)):
                found.append(Candidate("openvino", "int8"))
        return found

    def _make_candidate(self, candidate: Candidate) -> Engine:
        net = _module(self._net_for(candidate.precision))
        if candidate.backend == "pytorch":
            return TorchEngine(net, self.place.device, candidate.precision)
        from vsr.backends.openvino_engine import make_openvino_engine

        return make_openvino_engine(
            net, self._signature, precision=candidate.precision, division=candidate.division or self._division
        )

    def _takes_int8(self) -> bool:
        """Tell whether int8 can be had where it is asked for; note where "auto" cannot. Raises OptionError."""
        if isinstance(self._net, OnnxFile):
            raise OptionError("`precision=int8`: an ONNX file runs as it is; 'vsr export --precision int8' makes one")
        if self._backend == "pytorch":
            raise OptionError("`precision=int8`: PyTorch has no engine for it; OpenVINO (CPU) and TensorRT (CUDA) have")
        self._integers()
        if self._has_integers():
            return True
        name = FASTEST.get(self.place.device.type)
        remedy = install_hint(PACKAGES[name][1]) if name else "try `device=cpu`"
        text = f"PyTorch has no engine for int8: going on in the precision of 'auto'; for int8: {remedy}"
        self._note(Note(NoteCode.FALLBACK, text))
        return False

    def _has_integers(self) -> bool:
        """Tell whether the backend computes integers, if all goes well."""
        backend = FASTEST.get(self.place.device.type, "pytorch") if self._backend == "auto" else self._backend
        return backend != "pytorch" and is_installed(backend)

    def _integers(self) -> nn.Module:
        """Return the network for int8. Raises OptionError where there is none."""
        if self._quantized is None:
            if self._load_quantized is None:
                raise OptionError(f"`precision=int8`: '{self._label}' has no weights for it")
            self._quantized = self._load_quantized()
        return self._quantized

    def _net_for(self, precision: Precision) -> nn.Module | OnnxFile:
        if isinstance(self._net, OnnxFile):
            return self._net
        if precision == "int8":
            return self._integers()
        # A file of integers alone: fp32 computes their numbers, the others go without the rounding.
        return self._net if precision == "fp32" else without_quantization(self._net)

    def _resolved(self) -> Backend:
        if not isinstance(self._net, OnnxFile):
            return self.place.backend
        if self.place.backend not in ("auto", "openvino"):
            raise OptionError(f"`backend={self.place.backend}`: an ONNX file runs on OpenVINO")
        if self.place.device.type != "cpu":
            self._note(Note(NoteCode.FALLBACK, "an ONNX file runs on OpenVINO: on the CPU"))
            self.place = Place(torch.device("cpu"), self.place.backend)
        return "openvino"

    def _fastest(self, precision: Precision) -> Backend:
        name = FASTEST.get(self.place.device.type, "pytorch")
        if name == "pytorch":
            return name
        if not is_installed(name):
            title, extra = PACKAGES[name]
            self._give_up(f"{title} is not installed", f"; for it: {install_hint(extra)}")
            return "pytorch"
        if name == "openvino" and precision != "int8":
            return "pytorch" if self._work.is_too_short(_module(self._net), self._signature) else name
        return name

    def _native(self, precision: Precision) -> Engine:
        if made := self._made.pop(Candidate(self._backend, precision), None):
            return made
        net = self._net_for(precision)
        if self._backend == "tensorrt":
            from vsr.backends.tensorrt_engine import make_tensorrt_engine

            assert isinstance(net, nn.Module)  # see _resolved
            device, label = self.place.device, self._label
            engine = make_tensorrt_engine(
                net, self._signature, precision=precision, device=device, note=self._note, label=label
            )
            if not (self.is_fixed or self._work.is_worth_a_build):
                engine.build_nothing()
            return engine
        from vsr.backends.openvino_engine import make_openvino_engine

        accelerator = self.place.accelerator
        return make_openvino_engine(
            net, self._signature, precision=precision, accelerator=accelerator, division=self._division
        )

    def _compiler(self) -> Compiler | None:
        """Return torch.compile on a GPU, for jobs that are long beside the minute it takes."""
        is_long = self._work.macs is not None and self._work.macs >= _LONG_WORK
        return compile_for_gpu if is_long and self.place.device.type == "cuda" else None

    def _pytorch(self, precision: Precision, compiler: Compiler | None = None) -> Engine:
        if precision == "int8":
            self._is_int8, precision = False, safer_precisions(precision)[0]
            self._note(Note(NoteCode.FALLBACK, f"PyTorch has no engine for int8: going on in {precision}"))
        net = self._net_for(precision)
        assert isinstance(net, nn.Module)  # see _resolved
        if engine := self._made.pop(Candidate("pytorch", precision), None):
            return engine
        return TorchEngine(net, self.place.device, precision, compiler=compiler, note=self._note)

    def _give_up(self, why: str, remedy: str = "") -> None:
        if self._backend != "pytorch":
            self._note(Note(NoteCode.FALLBACK, f"{why}: going on with PyTorch{remedy}"))
        self._backend = "pytorch"


class _Fallback:
    """See `Engine`: PyTorch takes over for good where another engine fails. The caller mends running out of memory."""

    def __init__(self, engine: Engine, make_other: Callable[[], Engine], give_up: Callable[[str], None]) -> None:
        self._engine, self._make_other, self._give_up = engine, make_other, give_up
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype

    @property
    def state_dtype(self) -> torch.dtype:
        """See the function of this name."""
        return state_dtype(self._engine)

    def release(self) -> None:
        """Let go of the buffers of earlier batches, where the engine holds any."""
        release_buffers(self._engine)

    def make_launch(self, runner: DeviceRunner, shape: tuple[int, int, int, int]) -> Launch | None:
        """See `make_launch`; where it fails, PyTorch does not take over."""
        return make_launch(self._engine, runner, shape)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        try:
            return self._engine(*inputs)
        except EngineError as error:
            self._give_up(str(error))
            self._engine = self._make_other()
            self.name = self._engine.name
            return self._engine(*inputs)


def _note_left_out(candidates: list[Candidate], label: str, note: OnNote) -> None:
    """Say why OpenVINO, which is there, was not measured, and what would change that."""
    if all(candidate.backend != "openvino" for candidate in candidates):
        text = "OpenVINO is left out, as the job is over before the network is brought to its format"
        remedy = f"; 'vsr engine tune {label}' does that once, for all jobs" if label else ""
        note(Note(NoteCode.ENGINE, text + remedy))


def _module(net: nn.Module | OnnxFile) -> nn.Module:
    """Return a network that is no ONNX file, as such a file runs on OpenVINO alone."""
    assert isinstance(net, nn.Module)
    return net


def _is_quantized(net: nn.Module | OnnxFile) -> TypeGuard[nn.Module]:
    return isinstance(net, nn.Module) and is_quantized(net)
