"""The kernel that warps on a GPU, run as it is and compiled on the CPU, against the warping of CPUs."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vsr.events import Note
from vsr.pipeline.motion import taps_of, warp
from vsr.pipeline.warping import FusedWarping, TapsWay, WarpStep, make_warping, warp_step

FLOWS = {
    "still": (0.0, 0.0),
    "small": (1.5, 0.0),
    "across the borders": (20.0, 3.0),
    "far outside": (1e7, -1e6),
    "whole pixels": (0.0, 2.0),
}


def _frames(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, is_last: bool = False) -> Tensor:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if is_last else x


def _flow(num: int, height: int, width: int, kind: str = "across the borders") -> Tensor:
    spread, shift = FLOWS[kind]
    return torch.randn(num, height, width, 2, generator=torch.Generator().manual_seed(2)) * spread + shift


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("shape", [(1, 5, 13, 17), (3, 1, 9, 7), (2, 4, 1, 1), (1, 3, 2, 30)])
def test_the_kernel_gives_what_taps_give(shape: tuple[int, ...], is_last: bool, kind: str) -> None:
    x, flow = _frames(shape, is_last=is_last), _flow(shape[0], *shape[2:], kind=kind)
    warped = warp_step(x, flow)
    torch.testing.assert_close(warped, warp(x, taps_of(flow)), rtol=0, atol=2e-6)
    assert warped.stride() == x.stride(), "the network would have to bring it into order"


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
def test_a_state_of_16_bits_is_rounded_once(dtype: torch.dtype, unit: float) -> None:
    """Taps round the weights as well."""
    x, flow = _frames((1, 6, 31, 29), dtype, is_last=True), _flow(1, 31, 29)
    exact = warp(x.float(), taps_of(flow))
    warped, by_taps = warp_step(x, flow), warp(x, taps_of(flow))
    assert warped.dtype == dtype
    strays = (warped.float() - exact).abs()
    assert (strays <= exact.abs() * unit + 2e-6).all()
    assert strays.mean() <= (by_taps.float() - exact).abs().mean()


def _as_it_is(step: WarpStep) -> WarpStep:
    return step


def _refused(step: WarpStep) -> WarpStep:
    def run(x: Tensor, flow: Tensor) -> Tensor:
        raise RuntimeError("Cannot find a working triton\ninstallation")

    return run


@pytest.mark.parametrize("compiler", [_as_it_is, _refused])
def test_neighbours_and_state_are_warped_as_on_a_cpu_also_where_it_does_not_compile(
    compiler: Callable[[WarpStep], WarpStep],
) -> None:
    notes = list[Note]()
    warping = FusedWarping(compiler, notes.append)
    for seed in range(2):
        luma, state, flow = _frames((3, 1, 11, 14)), _frames((1, 6, 11, 14)), _flow(3, 11, 14) + seed
        way, wanted = warping(flow), TapsWay(flow)
        torch.testing.assert_close(way.plane(luma), wanted.plane(luma), rtol=0, atol=2e-6)
        for position in range(3):
            found = way.state(state, position)
            torch.testing.assert_close(found, wanted.state(state, position), rtol=0, atol=2e-6)
    reason = "warping along motion is not compiled (Cannot find a working triton installation): going on without"
    assert [str(note) for note in notes] == ([reason] if compiler is _refused else [])


def test_a_kernel_that_gives_other_values_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one for processors did, whose vector instructions mixed up 16 bit integers."""
    right = dict[tuple[int, ...], bool]()

    def compile_(step: WarpStep, **options: object) -> WarpStep:
        return lambda x, flow: step(x, flow) if right[tuple(x.shape)] else step(x, flow).roll(1, -1)

    monkeypatch.setattr(torch, "compile", compile_)
    notes = list[Note]()
    warping, flow = FusedWarping(note=notes.append), _flow(1, 11, 14, "small")
    for shape, right[shape] in (((1, 6, 11, 14), True), ((1, 5, 11, 14), False)):
        for is_last in (False, True):
            x = _frames(shape, is_last=is_last)
            found = warping(flow).state(x, 0)
            torch.testing.assert_close(found, TapsWay(flow).state(x, 0), rtol=0, atol=2e-6)
        assert len(notes) == (not right[shape])
    assert "not compiled (its values differ by" in str(notes[0])


def test_out_of_memory_is_no_failure_to_compile() -> None:
    def short(step: WarpStep) -> WarpStep:
        def run(x: Tensor, flow: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to")

        return run

    notes = list[Note]()
    way = FusedWarping(short, notes.append)(_flow(1, 8, 8))
    for warped in (way.plane, lambda x: way.state(x, 0)):
        with pytest.raises(torch.OutOfMemoryError):
            warped(_frames((1, 1, 8, 8)))
    assert not notes


def test_only_gpus_warp_by_the_kernel() -> None:
    assert isinstance(make_warping(torch.device("cuda"), lambda line: None), FusedWarping)
    assert make_warping(torch.device("cpu"), lambda line: None) is TapsWay


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
def test_compiled_it_is_one_loop_for_all_sizes_that_stores_nothing_between() -> None:
    """One kernel: what it reads are x and the flow, and what it writes is the result, as nothing else has a buffer."""
    from torch._inductor import config, metrics  # not public: the count of kernels is nowhere else

    warping = FusedWarping()
    metrics.reset()
    with torch.inference_mode(), config.patch({"cpp.simdlen": 0}):
        for height, width in ((23, 19), (10, 31), (12, 12)):
            x, flow = _frames((1, 6, height, width), is_last=True), _flow(2, height, width)
            way, wanted = warping(flow), TapsWay(flow)
            for position in range(2):
                warped = way.state(x, position)
                torch.testing.assert_close(warped, wanted.state(x, position), rtol=0, atol=2e-6)
            assert metrics.generated_kernel_count == 1
    assert warped.stride() == x.stride()
