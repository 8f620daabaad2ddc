"""Define the generator of SRGAN (SRResNet), Ledig et al. 2017, arXiv:1609.04802."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.layout import (
    SAME,
    Layout,
    State,
    convolutions,
    count_blocks,
    numbered,
    rename_module,
    shuffle_scale,
)

__all__ = ["LAYOUTS", "ResidualBlock", "SRResNet"]


class ResidualBlock(nn.Module):
    """Add convolution, PReLU and convolution to the input, each convolution with batch norm where asked."""

    def __init__(self, features: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.act = nn.PReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return x + out


class SRResNet(nn.Module):
    """Upscale by residual blocks at low resolution, then sub-pixel convolutions.

    Args:
        tail: "shuffle", one convolution and one pixel shuffle of the whole scale: the light form, whose work is all
            done at low resolution; or "classic", the paper's: a ×2 shuffle per factor of two (a ×3 shuffle for ×3),
            each with PReLU, and a 9×9 output convolution.
        head_kernel: 9 in the paper, 3 in the light form.
        batch_norm: True as in the paper, for loading its checkpoints; `fold_batch_norm` removes it.
        residual: adds the nearest-neighbour upscaled input (in float32, whatever the weights' dtype).
        fuse_act: puts a PReLU after the convolution that follows the blocks, as some public code does; the paper has
            none.
        tanh_output: gives (tanh(x) + 1) / 2, as some public code does; the paper gives x.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. The first convolution
    stays in float32, for the reason given in `LumaNet`; without the residual the last one does too, since it then gives
    the image.
    """

    def __init__(
        self,
        features: int = 64,
        num_blocks: int = 16,
        scale: int = 4,
        tail: Literal["shuffle", "classic"] = "shuffle",
        head_kernel: int = 3,
        batch_norm: bool = False,
        residual: bool = True,
        fuse_act: bool = False,
        tanh_output: bool = False,
    ) -> None:
        super().__init__()
        if tail == "classic" and scale not in (2, 3, 4, 8):
            raise ValueError(f"the classic tail upscales by 2, 3, 4 or 8, not by {scale}")
        self.scale, self.residual, self.tanh_output = scale, residual, tanh_output
        self.head = nn.Sequential(nn.Conv2d(3, features, head_kernel, padding=head_kernel // 2), nn.PReLU())
        self.blocks = nn.Sequential(*(ResidualBlock(features, batch_norm) for _ in range(num_blocks)))
        self.fuse = nn.Conv2d(features, features, 3, padding=1)
        self.fuse_bn = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.fuse_act = nn.PReLU() if fuse_act else nn.Identity()
        if tail == "shuffle":
            self.tail = nn.Sequential(nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
            tail_halo = 1
        else:
            steps: list[nn.Module] = []
            for factor in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
                steps += [nn.Conv2d(features, features * factor**2, 3, padding=1), nn.PixelShuffle(factor), nn.PReLU()]
            self.tail = nn.Sequential(*steps, nn.Conv2d(features, 3, 9, padding=4))
            tail_halo = 5  # at low resolution: at most 1 + 1/2 for the steps, 4/scale for the 9×9
        self.halo = head_kernel // 2 + 2 * num_blocks + 1 + tail_halo
        self._last = 0 if tail == "shuffle" else len(self.tail) - 1
        self.keep_float32 = ("head.0",) if residual else ("head.0", f"tail.{self._last}")

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.head[0].get_parameter("weight"), self.tail[self._last].get_parameter("weight")
        head = self.head[0](x.to(first.dtype)).to(self.fuse.weight.dtype)
        head = self.head[1](head)
        fused = self.fuse_act(self.fuse_bn(self.fuse(self.blocks(head))))
        features = self.tail[: self._last](head + fused)
        out: Tensor = self.tail[self._last :](features.to(last.dtype)).float()
        if self.residual:
            out = out + F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return (torch.tanh(out) + 1) / 2 if self.tanh_output else out


# -- layouts ----------------------------------------------------------------------------------------------


def _srresnet_options(state: State) -> dict[str, Any]:
    """Read the constructor's options from weights: a tail of one convolution is our light form.

    More convolutions are the paper's form, which has no residual.
    """
    features, _, head_kernel, _ = state["head.0.weight"].shape
    *steps, last = convolutions(state, "tail")
    return {
        "features": features,
        "num_blocks": count_blocks(state),
        "scale": shuffle_scale(steps) if steps else math.isqrt(last.shape[0] // 3),
        "tail": "classic" if steps else "shuffle",
        "head_kernel": head_kernel,
        "residual": not steps,
    }


def _srgan_options(state: State) -> dict[str, Any]:
    return _srresnet_options(state) | {"fuse_act": "fuse_act.weight" in state, "tanh_output": True}


def _number_output(state: State) -> State:
    """Number the output convolution after the steps of the tail, three layers each."""
    return rename_module(state, "output", f"tail.{3 * len(convolutions(state, 'tail'))}")


def _name_fuse_next(state: State) -> State:
    """Name the layer after the last low-resolution convolution: a batch norm or, in early versions, a PReLU."""
    name = "fuse_bn" if "fuse_next.running_mean" in state else "fuse_act"
    return _number_output(rename_module(state, "fuse_next", name))


LAYOUTS = (
    Layout(
        "leftthomas/SRGAN",
        "srresnet",
        (
            (r"block1\.([01])", r"head.\1"),
            (r"block([2-6])\.prelu", numbered("blocks.{}.act", offset=-2)),
            (r"block([2-6])\.(conv[12]|bn[12])", numbered("blocks.{}.{}", offset=-2)),
            (r"block7\.0", "fuse"),
            (r"block7\.1", "fuse_next"),
            (r"block8\.(\d)\.conv", numbered("tail.{}", 3)),
            (r"block8\.(\d)\.prelu", numbered("tail.{}", 3, 2)),
            (r"block8\.\d", "output"),
        ),
        _srgan_options,
        _name_fuse_next,
    ),
    Layout(
        "Lornatang/SRGAN-PyTorch",
        "srresnet",
        (
            (r"conv(?:_block)?1\.([01])", r"head.\1"),
            (r"trunk\.(\d+)\.rcb\.0", r"blocks.\1.conv1"),
            (r"trunk\.(\d+)\.rcb\.1", r"blocks.\1.bn1"),
            (r"trunk\.(\d+)\.rcb\.2", r"blocks.\1.act"),
            (r"trunk\.(\d+)\.rcb\.3", r"blocks.\1.conv2"),
            (r"trunk\.(\d+)\.rcb\.4", r"blocks.\1.bn2"),
            (r"conv(?:_block)?2\.0", "fuse"),
            (r"conv(?:_block)?2\.1", "fuse_bn"),
            (r"upsampling\.(\d+)\.upsample_block\.0", numbered("tail.{}", 3)),
            (r"upsampling\.(\d+)\.upsample_block\.2", numbered("tail.{}", 3, 2)),
            (r"conv(?:_block)?3", "output"),
        ),
        _srresnet_options,
        _number_output,
    ),
    Layout("vsr", "srresnet", SAME, _srresnet_options),
)
