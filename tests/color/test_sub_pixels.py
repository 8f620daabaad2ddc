"""Code values of sub-pixels in one loop, as it is and compiled on the CPU, against operations one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.compiled import FusedSamples
from vsr.backends.transfers import Planes
from vsr.color.pixel_formats import FORMATS
from vsr.color.sub_pixels import MakeSamples, Samples, SamplesStep, no_samples
from vsr.events import Note
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.pipeline.color_path import Target, batch_to_video_network

LUMA = Samples(gain=255.0, base_gain=255.0, bit_depth=8)
KINDS = {
    "luma": (1, 4, False, LUMA),
    "luma of 10 bits": (1, 4, False, Samples(1020.0, 1020.0, 10)),
    "chroma": (2, 2, True, Samples(255 * 0.125, 1.0, 8)),
    "chroma of 12 bits at ×2": (2, 1, True, Samples(4080 * 0.125, 16.0, 12)),
    "luma at ×3": (1, 3, False, LUMA),
}


def _inputs(kind: str, dtype: torch.dtype = torch.float32, height: int = 7, width: int = 9) -> tuple[Tensor, Tensor]:
    """Sub-pixels as a slice of a state in channels last, and a base in the unit of the kind."""
    channels, factor, is_large, samples = KINDS[kind]
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(2, 5 + channels * factor**2, height, width, generator=generator) * 0.3
    inner = factor if is_large else 1
    most = 2**samples.bit_depth / samples.base_gain
    base = torch.rand(2, channels, height * inner, width * inner, generator=generator) * most
    return state.to(dtype).contiguous(memory_format=torch.channels_last)[:, 5:], base


def _wanted(kind: str, sub_pixels: Tensor, base: Tensor) -> Tensor:
    _, factor, is_large, samples = KINDS[kind]
    full = base if is_large else base.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    values = F.pixel_shuffle(sub_pixels.float(), factor) * samples.gain + full * samples.base_gain
    return (values + 0.5).floor().clamp(0, 2**samples.bit_depth - 1).to(torch.int32)


def _check(found: Tensor | None, kind: str, sub_pixels: Tensor, base: Tensor) -> None:
    assert found is not None and found.dtype == (torch.uint8 if KINDS[kind][3].bit_depth == 8 else torch.uint16)
    strays = (found.to(torch.int32) - _wanted(kind, sub_pixels, base)).abs()
    assert strays.max() <= 1 and (strays > 0).float().mean() < 0.01  # halves, rounded either way


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_samples_are_those_of_one_operation_after_the_other(kind: str, dtype: torch.dtype) -> None:
    sub_pixels, base = _inputs(kind, dtype)
    _check(FusedSamples(lambda step: step)(sub_pixels, base, KINDS[kind][3]), kind, sub_pixels, base)


def _planes_of_video(target: str, scale: int, dtype: torch.dtype, make_samples: MakeSamples) -> Planes:
    """Planes of a noisy frame and of details as a network of ×4 leaves them."""
    colors = [
        Color(
            Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, FORMATS[name].bit_depth
        )
        for name in ("yuv420p", target)
    ]
    generator = torch.Generator().manual_seed(3)
    planes = tuple(
        torch.randint(0, 256, shape, generator=generator).to(torch.uint8) for shape in ((1, 1, 8, 10), (1, 2, 4, 5))
    )
    batch = FrameBatch(planes, (0,), (1,), Fraction(1, 25), colors[0])
    wanted = Target(10 * scale, 8 * scale, FORMATS[target], colors[1])
    state = torch.randn(1, 24, 8, 10, generator=generator).mul_(0.2).to(dtype)
    return batch_to_video_network(planes, batch, wanted, make_samples).finish(state[:, :16], state[:, 16:])


@pytest.mark.parametrize(
    ("target", "scale", "num_made"),
    [("yuv420p", 4, 2), ("yuv420p10le", 4, 2), ("gray", 4, 1), ("yuv444p", 4, 1), ("yuv420p", 3, 0)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_planes_of_a_networks_details_are_the_same_by_it_and_without(
    target: str, scale: int, num_made: int, dtype: torch.dtype
) -> None:
    fused, made = FusedSamples(lambda step: step), list[Tensor | None]()

    def counted(*inputs: Any) -> Tensor | None:
        made.append(fused(*inputs))
        return made[-1]

    by_it, without = (_planes_of_video(target, scale, dtype, make) for make in (counted, no_samples))
    assert len(made) == num_made and all(each is not None for each in made)
    for found, wanted in zip(by_it, without, strict=True):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        strays = (found.to(torch.int32) - wanted.to(torch.int32)).abs()
        assert strays.max() <= 1 and (strays > 0).float().mean() < 0.01


def test_where_it_does_not_compile_the_caller_is_told_each_time_and_the_user_once() -> None:
    def refuse(step: SamplesStep) -> SamplesStep:
        def run(*inputs: object) -> Tensor:
            raise ImportError("triton")

        return run

    notes = list[Note]()
    fused = FusedSamples(refuse, notes.append)
    assert [fused(*_inputs("luma"), LUMA) for _ in range(2)] == [None, None]
    assert [str(note) for note in notes] == ["the making of samples is not compiled (triton): going on without"]


@pytest.mark.parametrize("fault", [lambda x: x.roll(1, -1), lambda x: x ^ 2])
def test_one_that_gives_other_samples_is_left(
    fault: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda step, **options: lambda *inputs: fault(step(*inputs)))
    notes = list[Note]()
    assert FusedSamples(note=notes.append)(*_inputs("luma"), LUMA) is None
    assert "its values differ by" in str(notes[0])
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    assert FusedSamples(note=notes.append)(*_inputs("luma"), LUMA) is not None and len(notes) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
def test_compiled_it_is_one_loop_for_all_sizes() -> None:
    """As for warping: nothing but the inputs and the samples has a buffer."""
    from torch._inductor import config, metrics  # not public: the count of kernels is nowhere else

    notes = list[Note]()
    fused = FusedSamples(note=notes.append)
    metrics.reset()
    with torch.inference_mode(), config.patch({"cpp.simdlen": 0}):
        for size in ((7, 9), (11, 12)):
            sub_pixels, base = _inputs("luma", torch.float16, *size)
            _check(fused(sub_pixels, base, LUMA), "luma", sub_pixels, base)
            assert metrics.generated_kernel_count == 1 and not notes
