"""Define a small recurrent network for video, whose state is explicit input and output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.quantization import QuantizedConv2d

__all__ = ["CHROMA_GAIN", "RecurrentNet", "WithImages", "details", "state_channels"]

# Corrections of chroma are an order of magnitude smaller than those of luma. As outputs of the same layer they would
# need weights so small that the optimiser's steps swamp them.
CHROMA_GAIN = 0.125


class RecurrentNet(nn.Module):
    """Upscale the planes of a frame, given its neighbours and the state of the step before.

    A flow-warped recurrence in the manner of FRVSR (Sajjadi et al. 2018) and RLSP (Fuoli et al. 2019): a head of
    3×3 convolutions on frame and state, residual blocks, a tail, and pixel shuffles (Shi et al. 2016). It holds no
    state and no motion: its caller warps neighbours and state to the frame, so the graph is plain convolutions. The
    images are in the state that it gives: its caller takes them out (`images`), or makes code values of the `details`
    before these are shuffled to their places.

    Inputs, of one height and width (N, C, H, W), float32 but for the state:
        planes: 3 channels at the luma grid: Y as it is coded, over 255 (16/255 to 235/255 in limited range), and
            Cb and Cr about zero, (code − 128) / 255; both zero for a gray source.
        previous, following: 1 channel, the luma of the frame before and of the frame after, warped to this frame.
            Where there is none, the frame's own luma. A network with `uses_next=False` leaves `following` unused.
        state: `state_channels`, the `features` of the last layer but one and then the output of the last, of the
            step before, warped to this frame; zeros at a start (`initial_state`). Of any floating type.
    Output: the state, to warp to the next frame, of the type of the state that came in.

    In 16 bits luma and its weights go into the first convolution in two parts each, as eight bits of mantissa are too
    few for them, and luma is added to the result in float32.
    """

    float32_weights = ("pixels",)  # of a layer that brings them to 16 bits itself
    keep_float = ("state",)  # rounding to int8 would add up from frame to frame

    def __init__(self, features: int = 32, blocks: int = 3, scale: int = 4, uses_next: bool = True) -> None:
        super().__init__()
        if scale % 2:
            raise ValueError(f"scale {scale} is odd, and chroma has half the samples of luma")
        self.features, self.scale, self.uses_next = features, scale, uses_next
        self.state_channels = state_channels(features, scale=scale)
        num_details = self.state_channels - features
        self.pixels = _Pixels(5 if uses_next else 4, features, 3, padding=1)
        self.state = nn.Conv2d(self.state_channels, features, 3, padding=1, bias=False)
        self.activation = nn.PReLU(features, 0.1)
        self.body = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        self.tail = nn.Conv2d(features, num_details, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)  # starts at the nearest-neighbour image
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        self.halo = 2 * blocks + 2

    def initial_state(self, planes: Tensor) -> Tensor:
        """Make the state of a start: zeros for planes (N, 3, H, W)."""
        num, _, height, width = planes.shape
        return planes.new_zeros(num, self.state_channels, height, width)

    def forward(self, planes: Tensor, previous: Tensor, following: Tensor, state: Tensor) -> Tensor:
        luma, chroma = torch.split(planes, [1, 2], 1)
        changes = [previous - luma, following - luma] if self.uses_next else [previous - luma]
        dtype = self.state.weight.dtype
        seen = self.pixels(torch.cat((luma, chroma, *changes), 1), dtype)
        features = self.activation(self.state(state.to(dtype)) + seen)
        features = self.body(features)
        return torch.cat((features, self.tail(features)), 1).to(state.dtype)

    def images(self, planes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Take the images of a frame out of the state that was made of it, float32.

        Returns luma, (N, 1, H·scale, W·scale), unclamped, and chroma, (N, 2, H·scale/2, W·scale/2): the correction to
        add to the bicubically upscaled chroma, about zero and in the same unit, where an output of 4:2:0 with left
        siting has its samples.
        """
        luma, chroma = (part.to(planes.dtype) for part in details(state, self.scale))
        return (
            F.pixel_shuffle(luma + planes[:, :1], self.scale),
            F.pixel_shuffle(chroma * CHROMA_GAIN, self.scale // 2),
        )


class WithImages(nn.Module):
    """Let a recurrent network give luma and chroma, as `RecurrentNet.images` makes them, and then the state.

    For users of the network alone, such as those of an ONNX file.
    """

    def __init__(self, net: RecurrentNet) -> None:
        super().__init__()
        self.net = net
        self.float32_weights = tuple(f"net.{name}" for name in net.float32_weights)

    def forward(
        self, planes: Tensor, previous: Tensor, following: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        after = self.net(planes, previous, following, state)
        return (*self.net.images(planes, after), after)


def details(state: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Take the output of the last layer out of the state that a frame has left: on a CPU float32, else a view of it.

    On a GPU whoever reads them converts them, as each copy is another way through memory.

    Returns that of luma, (N, scale², H, W), to which the frame's luma is to be added, and that of chroma,
    (N, scale²/2, H, W), in units of `CHROMA_GAIN`; pixel shuffles by scale and scale/2 bring both to their places.
    """
    num_luma = scale * scale  # sub-pixels of an input pixel; those of Cb and Cr follow
    parts = torch.split(state[:, state.shape[1] - num_luma * 3 // 2 :], [num_luma, num_luma // 2], 1)
    if state.device.type == "cpu":
        parts = tuple(part.to(torch.float32, copy=True) for part in parts)  # a copy lets go of the state
    return parts[0], parts[1]


class _Pixels(nn.Conv2d):
    """Convolve an image whose first channel, in [0, 1], and its weights keep sixteen bits in bfloat16, too.

    The first eight bits of either and the rest are channels of their own; x and weights are float32.
    """

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """dtype: in which to multiply."""
        # Split, as OpenVINO replaces slices by an operation that it does not keep in float32.
        luma, others = torch.split(x, [1, x.shape[1] - 1], 1)
        weight = self.weight[:, :1]
        coarse, coarse_weight = (luma * 256).floor() / 256, (weight * 64).round() / 64
        split = torch.cat((luma - coarse, coarse, coarse, others), 1)
        weights = torch.cat((weight, coarse_weight, weight - coarse_weight, self.weight[:, 1:]), 1)
        bias = None if self.bias is None else self.bias.to(dtype)
        return F.conv2d(split.to(dtype), weights.to(dtype), bias, padding=1)


class _Block(nn.Module):
    """Add two convolutions around a PReLU to their input; begins close to the identity.

    In int8 the input is added as the integers that the first convolution takes: then engines read one tensor of 8 bits
    for both and add within the second convolution, where they would keep the input in floats beside it.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.activation = nn.PReLU(features, 0.1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        with torch.no_grad():
            self.second.weight *= 0.3

    @property
    def rounds_skip(self) -> bool:
        """True where the input is added as integers."""
        return isinstance(self.first, QuantizedConv2d)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.first.rounded(x) if isinstance(self.first, QuantizedConv2d) else x
        out: Tensor = kept + self.second(self.activation(self.first(x)))
        return out


def state_channels(features: int = 32, blocks: int = 3, scale: int = 4, uses_next: bool = True) -> int:
    """Give the number of channels of the state of a `RecurrentNet` with these options."""
    return features + scale * scale + 2 * (scale // 2) ** 2
