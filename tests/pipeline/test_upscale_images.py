"""Images of one size that go through the network together, and the turns that its computations take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from vsr.pipeline.loading import load_model
from vsr.pipeline.upscaler import Upscaler

HEIGHT, WIDTH = 17, 22


@pytest.fixture(scope="module", params=["pytorch", "openvino"])
def upscaler(request: pytest.FixtureRequest) -> Upscaler:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return load_model("nano", device="cpu", backend=request.param)


def _image(seed: int, channels: int, dtype: type[np.unsignedinteger] = np.uint8) -> np.ndarray:
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def test_together_images_have_the_bits_they_have_alone(upscaler: Upscaler) -> None:
    images = [_image(1, 3), _image(2, 3), _image(3, 4), _image(4, 1), _image(5, 3, np.uint16), _image(6, 3)]
    alone = [upscaler.upscale_image(image) for image in images]
    for one, other in zip(upscaler.upscale_images(images), alone, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_together_images_are_resized_as_they_are_alone(upscaler: Upscaler) -> None:
    images, size = [_image(7, 3), _image(8, 4)], (50, 31)
    alone = [upscaler.upscale_image(image, size) for image in images]
    together = upscaler.upscale_images(images, size)
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))
    assert together[0].shape == (31, 50, 3)


def test_each_batch_and_each_tile_takes_a_turn() -> None:
    taken = 0

    @contextmanager
    def turn() -> Iterator[None]:
        nonlocal taken
        taken += 1
        yield

    whole, tiled = (load_model("nano", device="cpu", backend="pytorch", tile=tile) for tile in (None, 32))
    for upscaler in (whole, tiled):
        upscaler.network.take_turn = turn
    whole.upscale_images([_image(1, 3), _image(2, 3)])
    assert taken == 1
    tiled.upscale_image(np.zeros((32, 64, 3), np.uint8))
    assert taken == 3
