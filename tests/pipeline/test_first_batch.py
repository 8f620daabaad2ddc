"""The first batch on a GPU: by the memory that is free, and what a network holds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.backends.engine import image_signature
from vsr.backends.transfers import DirectTransfers
from vsr.models.cards import ModelCard
from vsr.models.weights import load_with_card
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.first_batch import frames_that_fit, peak_bytes
from vsr.pipeline.loading import signature_of
from vsr.pipeline.upscaler import Upscaler

HEIGHT, WIDTH = 18, 32
GIB = 1 << 30


class OnGpu:
    """An engine that says it is on a GPU, and doubles on the CPU."""

    name, device, dtype = "pretended", torch.device("cuda"), torch.float32

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (F.interpolate(inputs[0], scale_factor=2),)


def test_the_peak_is_what_is_held_at_the_worst_moment() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(4))
    floats = HEIGHT * WIDTH * 4
    # The image stays; at the end 16 channels are shuffled into as many pixels.
    assert peak_bytes(net, image_signature(1), HEIGHT, WIDTH, "fp32") == (1 + 16 + 16) * floats
    assert peak_bytes(net[:3], image_signature(1), HEIGHT, WIDTH, "fp32") == (1 + 8 + 16) * floats


@pytest.mark.parametrize("name", ["fast", "srcnn", "video-fast"])
def test_the_peak_of_a_shipped_network_grows_with_the_frame_and_shrinks_with_the_precision(name: str) -> None:
    card, net = load_with_card(name)
    peak = peak_bytes(net, signature_of(card), 36, 64, "fp32")
    assert peak_bytes(net, signature_of(card), 72, 128, "fp32") == pytest.approx(4 * peak, rel=0.1)
    assert 0.4 * peak <= peak_bytes(net, signature_of(card), 36, 64, "fp16") <= peak
    assert peak_bytes(net, signature_of(card), 36, 64, "int8") == peak_bytes(net, signature_of(card), 36, 64, "fp16")


def test_as_many_frames_begin_as_memory_has_room_for() -> None:
    pixels = 2560 * 1440
    some, many = (frames_that_fit(free, GIB // 2, pixels, is_recurrent=False) for free in (3 * GIB, 12 * GIB))
    assert 1 < some < many < 24
    assert frames_that_fit(GIB // 4, GIB // 2, pixels, is_recurrent=False) == 1, "tiles do the rest"
    one_by_one = frames_that_fit(3 * GIB, GIB // 2, pixels, is_recurrent=True)
    assert one_by_one > some, "of a network with a state, one frame at a time is in the network"


def test_an_upscaler_goes_by_the_memory_that_others_and_its_own_reserve_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelCard("doubling", "luma", {}, 2, "y", 0)
    upscaler = Upscaler(CheckedNetwork(card, lambda precision: OnGpu(), "fp32"), DirectTransfers(torch.device("cpu")))
    assert upscaler.frames_that_fit(1280, 720) is None, "nothing is known of the network"
    upscaler.peak_bytes = lambda height, width: 300 * height * width
    free, reserved = 2 * GIB, 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    before = upscaler.frames_that_fit(1280, 720)
    assert before == int(2 * GIB * 0.85) // (1280 * 720 * (300 + 4 * 64))
    reserved = GIB
    assert upscaler.frames_that_fit(1280, 720) == int(3 * GIB * 0.85) // (1280 * 720 * (300 + 4 * 64))
