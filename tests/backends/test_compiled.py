"""torch.compile with its own tracer, and stand-ins for what makes kernels: these are seen on a GPU alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vsr.backends.compiled import CompiledEncoding, CompiledNet, compile_for_gpu
from vsr.backends.engine import Precision
from vsr.backends.select import EngineMaker, Place
from vsr.backends.torch_engine import TorchEngine
from vsr.color.encoding import Coding, EncodeStep
from vsr.events import Note
from vsr.frames import ChromaLocation, Color, Matrix, Primaries, Range, Transfer
from vsr.models.nets import LumaNet

CPU = torch.device("cpu")


def _net() -> LumaNet:
    torch.manual_seed(1)
    net = LumaNet(features=4, depth=1, scale=2)
    nn.init.normal_(net.tail.weight, std=0.2)
    return net


class Counting:
    """A compiler whose result counts its calls, by shape."""

    def __init__(self, most_pixels: int = 10**9) -> None:
        self.shapes, self.num_compiled, self._most_pixels = list[tuple[int, ...]](), 0, most_pixels

    def __call__(self, net: nn.Module) -> Callable[..., Any]:
        self.num_compiled += 1

        def run(x: Tensor) -> Any:
            if x.numel() > self._most_pixels:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to")
            self.shapes.append(tuple(x.shape))
            return net(x)

        return run


def _frames(num_frames: int, height: int = 12, width: int = 17) -> Tensor:
    return torch.rand((num_frames, 1, height, width), generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_output_is_that_of_the_network(precision: Precision) -> None:
    compiler = lambda net: torch.compile(net, backend="eager", dynamic=False)  # noqa: E731
    notes: list[str] = []
    compiled = TorchEngine(_net(), CPU, precision, compiler=compiler, note=notes.append)
    eager = TorchEngine(_net(), CPU, precision)
    for x in (_frames(2), _frames(2), _frames(1), _frames(1, 20, 9)):
        torch.testing.assert_close(compiled(x)[0], eager(x)[0], rtol=0, atol=1e-5)
    assert [line.split(";")[0] for line in notes] == [
        "compiling the network for 17x12, batch 2",
        "compiling the network for 9x20, batch 1",
    ]


def test_a_shape_is_compiled_once_and_a_remainder_is_not() -> None:
    compiler, net = Counting(), _net()
    engine = TorchEngine(net, CPU, "fp32", compiler=compiler)
    for count in (4, 4, 3, 4):
        engine(_frames(count))
    assert compiler.shapes == [(4, 1, 12, 17)] * 3
    assert compiler.num_compiled == 1


@pytest.mark.parametrize("error", [RuntimeError("Cannot find a working triton\ninstallation"), ImportError("triton")])
def test_a_network_that_does_not_compile_runs_as_it_is_and_says_so_once(error: Exception) -> None:
    def fail(net: nn.Module) -> Callable[..., Any]:
        def run(x: Tensor) -> Any:
            raise error

        return run

    notes: list[str] = []
    engine = TorchEngine(_net(), CPU, "fp32", compiler=fail, note=notes.append)
    for x in (_frames(2), _frames(2), _frames(1, 20, 9)):
        torch.testing.assert_close(engine(x)[0], TorchEngine(_net(), CPU, "fp32")(x)[0], rtol=0, atol=1e-5)
    assert len(notes) == 2 and "does not compile (" in notes[1] and "triton" in notes[1] and "\n" not in notes[1]


def test_out_of_memory_is_no_failure_to_compile_and_the_next_smaller_shape_is_compiled() -> None:
    compiler = Counting(most_pixels=2 * 12 * 17)
    engine = TorchEngine(_net(), CPU, "fp32", compiler=compiler)
    with pytest.raises(torch.OutOfMemoryError):
        engine(_frames(4))
    for count in (2, 2, 1):
        engine(_frames(count))
    assert compiler.shapes == [(2, 1, 12, 17)] * 2


def test_out_of_memory_later_on_gives_way_to_a_smaller_shape() -> None:
    compiler = Counting()
    net = CompiledNet(_net(), compiler)
    net(_frames(4))
    compiler._most_pixels = 2 * 12 * 17
    with pytest.raises(torch.OutOfMemoryError):
        net(_frames(4))
    net(_frames(2))
    assert compiler.shapes == [(4, 1, 12, 17), (2, 1, 12, 17)]


@pytest.mark.parametrize(
    ("device", "work", "compiles"),
    [
        ("cuda", 1e17, True),
        ("cuda", float("inf"), True),
        ("cuda", 1e12, False),
        ("cuda", None, False),
        ("cpu", 1e17, False),
    ],
)
def test_only_long_jobs_on_a_gpu_are_compiled_and_the_reference_never(
    device: str, work: float | None, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    pretended = lambda net, device, precision, **options: made.append(options.get("compiler"))  # noqa: E731
    monkeypatch.setattr("vsr.backends.select.TorchEngine", pretended)
    engines = EngineMaker(_net(), 1, Place(torch.device(device), "pytorch"), work=work)
    engines.make("fp16")
    engines.make_reference()
    assert made == [compile_for_gpu if compiles else None, None]


def _planes(encoding: CompiledEncoding, rgb: Tensor) -> list[Tensor]:
    color = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, bit_depth=10)
    return list(encoding(rgb, Coding.of(color, (1, 1), CPU)))


def test_colour_that_is_compiled_has_the_bits_of_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsr.backends.compiled.FRAMES_BEFORE_COMPILING", 3)
    compiled = list[EncodeStep]()

    def trace(step: EncodeStep) -> EncodeStep:
        compiled.append(torch.compile(step, dynamic=False, fullgraph=True, backend="aot_eager"))
        return compiled[-1]

    encoding = CompiledEncoding(trace)
    rgb = torch.rand((2, 3, 77, 33), generator=torch.Generator().manual_seed(2)) * 1.2 - 0.1
    in_bands = _planes(encoding, rgb)
    assert not compiled
    for planes in (_planes(encoding, rgb), _planes(encoding, rgb)):
        assert all(torch.equal(a, b) for a, b in zip(planes, in_bands, strict=True))
    assert len(compiled) == 1
    _planes(encoding, rgb[..., :20])  # of another shape, which is not worth another compilation
    assert len(compiled) == 1


def test_colour_that_does_not_compile_goes_on_in_bands_with_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsr.backends.compiled.FRAMES_BEFORE_COMPILING", 1)

    def fail(step: EncodeStep) -> EncodeStep:
        raise RuntimeError("no compiler")

    notes = list[Note]()
    encoding = CompiledEncoding(fail, notes.append)
    rgb = torch.rand(1, 3, 6, 8)
    for _ in range(2):
        luma, chroma = _planes(encoding, rgb)
        assert luma.shape == (1, 1, 6, 8) and chroma.shape == (1, 2, 3, 4)
    assert [str(note) for note in notes] == ["colour conversion does not compile (no compiler): going on without"]
