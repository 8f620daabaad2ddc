from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.backends.torch_engine import TorchEngine
from vsr.errors import EngineError
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet, SRResNet
from vsr.pipeline.tiles import SMALLEST_TILE, TiledNetwork

CPU = torch.device("cpu")


class FunctionEngine:
    """An engine around any function, which remembers the shapes it was given."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.name, self.device, self.dtype = "fake", CPU, torch.float32
        self.function = function
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        self.shapes.append(tuple(x.shape))
        return (self.function(x),)


def _card(**changes: Any) -> ModelCard:
    fields: dict[str, Any] = {"name": "fake", "net": "luma", "options": {}, "scale": 2}
    return ModelCard(**(fields | {"color": "y", "halo": 2} | changes))


def _luma_net() -> LumaNet:
    torch.manual_seed(1)
    net = LumaNet(features=4, depth=1, scale=2)
    nn.init.normal_(net.tail.weight, std=0.2)  # a fresh tail adds next to nothing
    return net


def _picture(count: int, height: int, width: int, channels: int = 1) -> Tensor:
    return torch.rand((count, channels, height, width), generator=torch.Generator().manual_seed(height))


def _blurred_twice_as_large(x: Tensor) -> Tensor:
    """A function of halo 2, with zeros around the picture as in convolutions."""
    kernel = torch.arange(1.0, 26.0).view(1, 1, 5, 5) / 325
    return F.interpolate(F.conv2d(x, kernel, padding=2), scale_factor=2.0, mode="nearest")


# -- tiles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(33, 17), (40, 64), (7, 90)])
@pytest.mark.parametrize("tile", [8, 13, 32, 200])
def test_tiled_output_equals_untiled_output(size: tuple[int, int], tile: int) -> None:
    net, x = _luma_net(), _picture(2, *size)
    engine, card = TorchEngine(net, CPU, "fp32"), _card(halo=net.halo)
    whole = TiledNetwork(engine, card)(x)[0]
    tiled = TiledNetwork(engine, card, tile)(x)[0]
    assert tiled.shape == (2, 1, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tail", ["shuffle", "classic"])
def test_tiled_colour_output_equals_untiled_output(tail: Any) -> None:
    torch.manual_seed(1)
    net = SRResNet(features=4, num_blocks=1, scale=4, tail=tail, head_kernel=9)
    engine, card = TorchEngine(net, CPU, "fp32"), _card(halo=net.halo, scale=4, color="rgb")
    x = _picture(1, 21, 30, channels=3)
    whole, tiled = TiledNetwork(engine, card)(x)[0], TiledNetwork(engine, card, 9)(x)[0]
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)


def test_a_halo_too_small_would_be_seen_by_these_tests() -> None:
    net, x = _luma_net(), _picture(1, 33, 17)
    engine = TorchEngine(net, CPU, "fp32")
    difference = TiledNetwork(engine, _card(halo=0), 8)(x)[0] - TiledNetwork(engine, _card(halo=net.halo))(x)[0]
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("tile", [8, 16, 20])
def test_no_tile_is_larger_than_asked_but_for_the_halo(tile: int) -> None:
    engine = FunctionEngine(_blurred_twice_as_large)
    TiledNetwork(engine, _card(), tile)(_picture(1, 50, 41))[0]
    assert max(max(shape[-2:]) for shape in engine.shapes) <= tile + 2 * 2
    assert len(engine.shapes) == -(-50 // tile) * -(-41 // tile)


@pytest.mark.parametrize("multiple", [1, 2, 8])
@pytest.mark.parametrize("halo", [0, 3, 17])
@pytest.mark.parametrize("tile", [1, 7, 32])
@pytest.mark.parametrize("size", [(150, 67), (41, 300), (19, 200)])
def test_all_tiles_are_of_one_shape(size: tuple[int, int], tile: int, halo: int, multiple: int) -> None:
    """Engines that are built for a shape are built once."""
    engine = FunctionEngine(lambda x: x)
    x = _picture(2, *size)
    assert torch.equal(TiledNetwork(engine, _card(scale=1, halo=halo, multiple_of=multiple), tile)(x)[0], x)
    (shape,) = set(engine.shapes)
    padded = [-(-side // multiple) * multiple for side in size]
    assert all(side % multiple == 0 and side <= most for side, most in zip(shape[-2:], padded, strict=True))
    assert max(shape[-2:]) <= tile + 2 * halo + 4 * multiple
    assert len(engine.shapes) <= -(-size[0] // tile) * -(-size[1] // tile)


def test_tiles_of_one_shape_are_no_more_work_than_tiles_cut_at_the_borders() -> None:
    engine = FunctionEngine(lambda x: x)
    TiledNetwork(engine, _card(scale=1, halo=20), 100)(_picture(1, 200, 100))[0]
    assert engine.shapes == [(1, 1, 120, 100)] * 2


def test_a_picture_that_fits_one_tile_is_not_cut() -> None:
    engine = FunctionEngine(_blurred_twice_as_large)
    TiledNetwork(engine, _card(), 41)(_picture(3, 40, 41))[0]
    assert engine.shapes == [(3, 1, 40, 41)]


# -- networks that need sides of a multiple --------------------------------------------------------------


@pytest.mark.parametrize("size", [(33, 17), (32, 16), (1, 3)])
def test_sides_are_padded_to_the_multiple_and_cropped_back(size: tuple[int, int]) -> None:
    engine = FunctionEngine(lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"))
    x = _picture(2, *size)
    out = TiledNetwork(engine, _card(multiple_of=8))(x)[0]
    assert all(side % 8 == 0 for side in engine.shapes[0][-2:])
    assert engine.shapes[0][-2:] == (-(-size[0] // 8) * 8, -(-size[1] // 8) * 8)
    assert torch.equal(out, F.interpolate(x, scale_factor=2.0, mode="nearest"))


def test_padding_repeats_the_edge() -> None:
    seen: list[Tensor] = []
    engine = FunctionEngine(lambda x: seen.append(x) or x)  # type: ignore[func-returns-value]
    x = _picture(1, 5, 6)
    TiledNetwork(engine, _card(scale=1, multiple_of=4))(x)[0]
    assert torch.equal(seen[0], F.pad(x, (0, 2, 0, 3), mode="replicate"))


def _in_cells_of_two(x: Tensor) -> Tensor:
    """A network of multiple_of 2 and halo 3: its 3 x 3 convolution works on cells of 2 x 2 pixels."""
    weight = torch.rand((16, 4, 3, 3), generator=torch.Generator().manual_seed(7)) - 0.5
    return F.pixel_shuffle(F.conv2d(F.pixel_unshuffle(x, 2), weight, padding=1), 4)


@pytest.mark.parametrize("size", [(32, 48), (33, 17)])
@pytest.mark.parametrize("tile", [8, 13])
def test_tiled_equals_untiled_where_sides_need_a_multiple(size: tuple[int, int], tile: int) -> None:
    engine, card, x = FunctionEngine(_in_cells_of_two), _card(multiple_of=2, halo=3), _picture(1, *size)
    whole, tiled = TiledNetwork(engine, card)(x)[0], TiledNetwork(engine, card, tile)(x)[0]
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)


# -- memory ----------------------------------------------------------------------------------------------


class SmallMemory(FunctionEngine):
    """An engine that is out of memory above a number of pixels."""

    def __init__(self, most_pixels: int, error: Callable[[], BaseException] | None = None) -> None:
        super().__init__(_blurred_twice_as_large)
        self.most_pixels, self.num_refused = most_pixels, 0
        self.error = error or (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to"))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if inputs[0].numel() > self.most_pixels:
            self.num_refused += 1
            raise self.error()
        return super().__call__(*inputs)


def test_out_of_memory_halves_the_batch_until_it_fits() -> None:
    engine, x = SmallMemory(2 * 20 * 30), _picture(7, 20, 30)
    notes: list[str] = []
    network = TiledNetwork(engine, _card(), note=notes.append)
    assert torch.equal(network(x)[0], _blurred_twice_as_large(x))
    assert [shape[0] for shape in engine.shapes] == [1] * 7
    assert notes == [f"out of memory: going on with batches of {n}" for n in (3, 1)]


def test_a_batch_that_does_not_divide_evenly_keeps_every_frame_in_order() -> None:
    engine, x = SmallMemory(4 * 20 * 30), _picture(7, 20, 30)
    assert torch.equal(TiledNetwork(engine, _card())(x)[0], _blurred_twice_as_large(x))
    assert [shape[0] for shape in engine.shapes] == [3, 3, 1]


def test_out_of_memory_cuts_frames_into_tiles_when_one_frame_is_too_much() -> None:
    engine, x = SmallMemory(60 * 60), _picture(2, 90, 100)
    notes: list[str] = []
    network = TiledNetwork(engine, _card(), note=notes.append)
    torch.testing.assert_close(network(x)[0], _blurred_twice_as_large(x), rtol=0, atol=1e-6)
    assert notes == [
        "out of memory: going on with batches of 1",
        "out of memory: going on with tiles of 50 pixels",
    ]


def test_out_of_memory_shrinks_tiles_down_to_the_smallest() -> None:
    engine, x = SmallMemory(40 * 40), _picture(1, 150, 70)
    notes: list[str] = []
    network = TiledNetwork(engine, _card(), tile=120, note=notes.append)
    torch.testing.assert_close(network(x)[0], _blurred_twice_as_large(x), rtol=0, atol=1e-6)
    assert network.tile == SMALLEST_TILE
    assert [line.split("tiles of ")[1] for line in notes] == ["60 pixels", "32 pixels"]


def test_what_was_learnt_holds_for_the_next_batch() -> None:
    engine = SmallMemory(60 * 60)
    network = TiledNetwork(engine, _card())
    network(_picture(2, 90, 100))[0]
    refused = engine.num_refused
    network(_picture(2, 90, 100))[0]
    assert engine.num_refused == refused > 0


@pytest.mark.parametrize("size", [(100, 90), (20, 20)])
def test_too_little_for_the_smallest_tile_is_an_engine_error(size: tuple[int, int]) -> None:
    with pytest.raises(EngineError, match="out of memory") as caught:
        TiledNetwork(SmallMemory(100), _card())(_picture(2, *size))[0]
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert "\n" not in str(caught.value)


def _error_of_the_cpu_allocator() -> BaseException:
    try:
        torch.empty(2**56)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has 256 PiB of memory")


@pytest.mark.parametrize("error", [MemoryError, _error_of_the_cpu_allocator])
def test_other_ways_to_run_out_of_memory_are_understood(error: Callable[[], BaseException]) -> None:
    x = _picture(4, 20, 30)
    network = TiledNetwork(SmallMemory(2 * 20 * 30, error), _card())
    assert torch.equal(network(x)[0], _blurred_twice_as_large(x))


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), ValueError("no")])
def test_other_errors_pass_through_as_they_are(error: Exception) -> None:
    def fail(x: Tensor) -> Tensor:
        raise error

    engine = FunctionEngine(fail)
    notes: list[str] = []
    with pytest.raises(type(error)) as caught:
        TiledNetwork(engine, _card(), note=notes.append)(_picture(4, 50, 50))[0]
    assert caught.value is error
    assert len(engine.shapes) == 1 and notes == []
