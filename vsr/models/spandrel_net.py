"""Wrap networks that the optional library spandrel recognises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vsr.extras import importing

__all__ = ["HALO", "NET", "SpandrelNet", "build_spandrel_net"]

NET = "spandrel"  # a card's `net`
HALO = 64  # input pixels; the receptive field of such a network is unknown, so tiled output may differ from untiled


class SpandrelNet(nn.Module):
    """Give a network built by spandrel the attributes of ours.

    Input (N, C, H, W) float32 in [0, 1], C = `channels`, 1 or 3; output (N, C, H·scale, W·scale) float32. Sides are
    padded to multiples that the network takes. It stays in float32 in place of a half precision that it is not known to
    work in.
    """

    halo = HALO

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.architecture = str(descriptor.architecture.name)
        self.scale, self.channels = int(descriptor.scale), int(descriptor.input_channels)
        self.multiple_of = int(descriptor.size_requirements.multiple_of)
        self.net: nn.Module = descriptor.model
        self.keep_float32 = () if descriptor.supports_bfloat16 else ("net",)
        self.keep_float32_in_fp16 = () if descriptor.supports_half else ("net",)
        self._size = descriptor.size_requirements
        # Not the descriptor itself: engines copy and convert `net`, which it would not follow. A few of its
        # networks want more than their input, or give more than an image; this function knows of it.
        self._call = getattr(descriptor, "_call_fn", lambda net, x: net(x))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        right, below = self._size.get_padding(width, height)
        padded = F.pad(x, (0, right, 0, below), mode="replicate").to(next(self.net.parameters()).dtype)
        out: Tensor = self._call(self.net, padded)
        return out[..., : height * self.scale, : width * self.scale].float()


def build_spandrel_net(state: Mapping[str, Tensor]) -> SpandrelNet:
    """Build the network that spandrel recognises in these weights: float32, on the CPU.

    Raises MissingExtraError where spandrel is not installed, BrokenExtraError where it does not load, and ValueError,
    with the reason, where it does not know the weights or the network does not enlarge single images.
    """
    with importing("a network of this layout", "spandrel", "spandrel", "torchvision"):
        import spandrel

        loader = spandrel.ModelLoader(device="cpu")
    try:
        descriptor = loader.load_from_state_dict(dict(state))
    except Exception as error:  # it does not know the weights, or mistook them
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise ValueError(f"nor does the library spandrel ({reason})") from error
    name, channels = descriptor.architecture.name, (descriptor.input_channels, descriptor.output_channels)
    if descriptor.purpose not in ("SR", "Restoration") or channels not in ((1, 1), (3, 3)):
        raise ValueError(
            f"by spandrel it is {name} for {descriptor.purpose}, from {channels[0]} to {channels[1]} channels"
        )
    return SpandrelNet(descriptor)
