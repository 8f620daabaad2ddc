"""What the steady state of a job asks of a GPU, seen without one: planes on the `meta` device, every operation watched.

On that device nothing is computed, so whatever would wait for a value, such as asking whether a sum is finite, is an
error; a copy from CPU memory that is not page-locked, which would wait for all work that is queued, shows as an
operation that takes a CPU tensor and gives one of the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from graph_double import GraphRunner
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vsr.backends.compiled import FusedSamples
from vsr.backends.cuda_runner import DeviceRunner
from vsr.backends.engine import Launch, Precision
from vsr.backends.torch_engine import TorchEngine
from vsr.backends.transfers import Planes
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.color.sub_pixels import MakeSamples, no_samples
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet, SRResNet
from vsr.models.nets.recurrent import RecurrentNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.temporal import TemporalProcessor
from vsr.pipeline.upscaler import Upscaler
from vsr.pipeline.warping import FusedWarping, TapsWay, Warping

Kernels = tuple[Warping, MakeSamples]
META = torch.device("meta")
HEIGHT, WIDTH, SCALE = 36, 64, 4
# Bytes read from and written to memory for a pixel of the output, by what the network takes, the network left out.
CEILINGS = {"rgb": 28, "y": 33}
# The same between the steps of a recurrent network with a state of 32 channels, by whether compiled kernels warp and
# make samples, and by the type of the state. In fp16 a kernel reads 64 bytes of state and 8 of the flow and writes 64
# for sixteen pixels of the output: 8.5 bytes a pixel, and 2 for the luma of both neighbours; the search for NaN reads
# the state once more, 4; joining the frames' sub-pixels takes 6, and making samples of them 8. By taps, which are 128
# bytes for each pixel and are read and written several times on their way, warping alone takes 200. A replay as a graph
# takes 13 more in fp16, for copies to and from its buffers.
RECURRENT_CEILINGS: dict[tuple[bool, Precision], float] = {
    (True, "fp16"): 39,
    (True, "fp32"): 58,
    (False, "fp32"): 290,
}
CACHED = 12 << 20  # bytes; smaller tensors, as the bands that colour is worked off in, are still in the cache when read


class Watch(TorchDispatchMode):
    """Write down copies from the CPU to the device, and count the bytes that work on the device reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []
        self.num_bytes = 0
        self.cached = 0
        self.is_paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.is_paused:
            return out
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        on_device = [x for x in outputs if x.device == META]
        if on_device and any(x.device.type == "cpu" for x in inputs):
            self.copies.append(str(func))
        is_view = func.is_view or (any(x is y for x in inputs for y in outputs) and str(func).split(".")[1][-1:] != "_")
        if on_device and not is_view:
            counted = [x for x in (*inputs, *on_device) if x.device == META and self._is_in_memory(x)]
            most = (
                on_device[0].nbytes if func is torch.ops.aten.index_select.default else 1 << 62
            )  # reads what it gives
            self.num_bytes += sum(min(x.nbytes, most) for x in counted)
        return out

    def _is_in_memory(self, x: Tensor) -> bool:
        return x.untyped_storage().nbytes() > self.cached


class MetaTransfers:
    """Transfers whose uploads are paid for, and whose downloads fetch nothing."""

    num_in_flight = 1

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def upload(self, planes: Planes) -> Planes:
        self._watch.is_paused = True
        moved = tuple(plane.to(META) for plane in planes)
        self._watch.is_paused = False
        return moved

    def download(self, planes: Planes) -> Callable[[], Planes]:
        assert all(plane.device == META for plane in planes), "it would have waited before"
        return lambda: planes


class UncountedEngine:
    """An engine whose own traffic does not count."""

    def __init__(self, engine: TorchEngine, watch: Watch) -> None:
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype
        self.state_dtype = engine.dtype  # as on CUDA
        self._engine, self._watch = engine, watch

    def make_launch(self, runner: DeviceRunner, shape: tuple[int, int, int, int]) -> Launch:
        return self

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        before, copies = self._watch.num_bytes, len(self._watch.copies)
        out = self._engine(*inputs)
        self._watch.num_bytes = before
        assert len(self._watch.copies) == copies, "the network copies from the CPU"
        return out


def _color(name: str) -> Color:
    format_ = FORMATS[name]
    matrix = Matrix.RGB if format_.kind == "rgb" else Matrix.BT709
    return Color(matrix, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, format_.bit_depth)


def _batch(name: str, height: int = HEIGHT, width: int = WIDTH) -> FrameBatch:
    planes = allocate_planes(FORMATS[name], 2, height, width)
    return FrameBatch(planes, (0, 1), (1, 1), Fraction(1, 25), _color(name))


def _upscaler(color: Any, watch: Watch) -> Upscaler:
    net = LumaNet(4, 1, SCALE) if color == "y" else SRResNet(4, 1, SCALE)

    def make_engine(precision: Precision) -> UncountedEngine:
        return UncountedEngine(TorchEngine(net.eval(), META, precision), watch)

    card = ModelCard("tiny", "luma", {}, SCALE, color, net.halo)
    return Upscaler(CheckedNetwork(card, make_engine, "fp32"), MetaTransfers(watch))


@pytest.mark.parametrize("color", ["rgb", "y"])
@pytest.mark.parametrize("scale", [SCALE, 3])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("yuv420p", "yuv420p"),
        ("yuv420p10le", "yuv420p10le"),
        ("yuv420p", "yuv444p"),
        ("rgb24", "yuv420p"),
        ("gray", "yuv420p"),
        ("yuva420p", "yuva420p"),
    ],
)
def test_after_the_first_batch_nothing_is_copied_from_the_cpu_and_nothing_waits(
    source: str, target: str, scale: int, color: str
) -> None:
    with Watch() as watch:
        upscaler, wanted = (
            _upscaler(color, watch),
            Target(WIDTH * scale, HEIGHT * scale, FORMATS[target], _color(target)),
        )
        for _ in range(3):
            watch.copies.clear()
            upscaler.submit(_batch(source), wanted)
        assert watch.copies == []


@pytest.mark.parametrize("color", CEILINGS)
def test_colour_stays_below_its_memory_traffic(color: str) -> None:
    height, width = (360, 640) if color == "rgb" else (HEIGHT, WIDTH)
    with Watch() as watch:
        watch.cached = CACHED if color == "rgb" else 0
        upscaler, target = (
            _upscaler(color, watch),
            Target(width * SCALE, height * SCALE, FORMATS["yuv420p"], _color("yuv420p")),
        )
        upscaler.submit(_batch("yuv420p", height, width), target)
        watch.num_bytes = 0
        upscaler.submit(_batch("yuv420p", height, width), target)
    per_pixel = watch.num_bytes / (2 * width * height * SCALE**2)
    assert per_pixel <= CEILINGS[color], f"{per_pixel:.1f} bytes for a pixel of the output"


def _moving(num_frames: int, height: int, width: int) -> FrameBatch:
    """Noise that moves to the right by a pixel a frame, so that there is motion and no cut."""
    wide = torch.randint(16, 236, (height // 4, width // 4 + num_frames), generator=torch.Generator().manual_seed(1))
    wide = wide.repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8)
    luma = torch.stack([wide[:, 4 * n : 4 * n + width] for n in range(num_frames)])[:, None]
    chroma = torch.full((num_frames, 2, height // 2, width // 2), 128, dtype=torch.uint8)
    numbers = tuple(range(num_frames))
    return FrameBatch((luma, chroma), numbers, (1,) * num_frames, Fraction(1, 25), _color("yuv420p"))


def _counted(watch: Watch, step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Count what a kernel reads and writes: its inputs once, as neighbours are in the cache, and its output."""

    def run(*inputs: Any) -> Tensor:
        watch.is_paused = True
        out = step(*inputs)
        watch.is_paused = False
        watch.num_bytes += out.nbytes + sum(x.nbytes for x in inputs if isinstance(x, Tensor))
        return out

    return run


def _temporal(
    watch: Watch, target: Target, kernels: Kernels, runner: DeviceRunner | None = None, precision: Precision = "fp32"
) -> TemporalProcessor:
    torch.manual_seed(2)
    options = {"features": 8, "blocks": 1, "scale": SCALE}
    net = RecurrentNet(**options).eval()  # type: ignore[arg-type]
    card = ModelCard(
        "tiny", "recurrent", options, SCALE, "yuv", net.halo, recurrent=True, restart_interval=240, warm_up=8
    )

    def make_engine(precision: Precision) -> UncountedEngine:
        return UncountedEngine(TorchEngine(net, META, precision), watch)

    network = CheckedNetwork(card, make_engine, precision)
    network.leave_check()  # which would ask for values
    return TemporalProcessor(network, target, MetaTransfers(watch), kernels[0], runner, kernels[1])


@pytest.mark.parametrize(("has_kernels", "precision"), RECURRENT_CEILINGS)
def test_a_recurrent_network_steps_without_a_wait_and_below_its_memory_traffic(
    has_kernels: bool, precision: Precision
) -> None:
    """Counted with all between the network's steps: warped neighbours and state, which no other network has.

    That the kernels store nothing else is for their own tests to show.
    """
    height, width, num_frames = 96, 160, 4
    target = Target(width * SCALE, height * SCALE, FORMATS["yuv420p"], _color("yuv420p"))
    with Watch() as watch:
        counted = functools.partial(_counted, watch)
        kernels = (FusedWarping(counted), FusedSamples(counted)) if has_kernels else (TapsWay, no_samples)
        processor = _temporal(watch, target, kernels, precision=precision)
        batch = _moving(num_frames, height, width)
        for _ in range(3):
            watch.copies.clear()
            watch.num_bytes = 0
            processor.push(batch)
        assert watch.copies == []
    per_pixel = watch.num_bytes / (num_frames * width * height * SCALE**2)
    ceiling = RECURRENT_CEILINGS[has_kernels, precision]
    assert per_pixel <= ceiling, f"{per_pixel:.1f} bytes for a pixel of the output"
    assert per_pixel > ceiling * 0.8, f"{per_pixel:.1f} bytes are less than expected: was the motion seen?"


def test_replayed_steps_wait_for_nothing() -> None:
    target = Target(160 * SCALE, 96 * SCALE, FORMATS["yuv420p"], _color("yuv420p"))
    runner = GraphRunner(device="meta")
    with Watch() as watch:
        processor, batch = (
            _temporal(watch, target, (FusedWarping(lambda step: step), no_samples), runner),
            _moving(4, 96, 160),
        )
        for _ in range(3):
            watch.copies.clear()
            processor.push(batch)
        assert watch.copies == []
    assert runner.log == ["capture", *["replay 1"] * 4], "the second batch is the first that is replayed"


def test_the_watch_sees_a_copy_from_the_cpu() -> None:
    with Watch() as watch:
        torch.zeros(3).to(META)
    assert watch.copies
