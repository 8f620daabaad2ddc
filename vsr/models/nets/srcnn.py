"""Define SRCNN, Dong et al. 2014, arXiv:1501.00092."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vsr.models.nets.bicubic import BicubicUp
from vsr.models.nets.layout import Layout, State

__all__ = ["LAYOUTS", "SRCNN"]


class SRCNN(nn.Module):
    """Enlarge luma, or RGB, bicubically, then refine it by three convolutions: patches, mapping, reconstruction.

    Args:
        kernels: (9, 1, 5) or (9, 5, 5), the paper's small and large forms.
        residual: True where the convolutions give the difference to the bicubic image (VDSR's idea, which trains in a
            fraction of the steps); False where they give the image itself, as in the paper.
        channels: 1 for luma, as in the paper, or 3 for RGB, as some public code has it.

    Input (N, C, H, W) float32, nominally in [0, 1]; output (N, C, H·scale, W·scale) float32, unclamped. Enlargement,
    first convolution and sum stay in float32 as in `LumaNet`; without the residual the last convolution does too, since
    it then gives the image.
    """

    def __init__(
        self, kernels: tuple[int, int, int] = (9, 5, 5), scale: int = 4, residual: bool = True, channels: int = 1
    ) -> None:
        super().__init__()
        first, middle, last = kernels
        self.scale, self.residual = scale, residual
        self.keep_float32 = ("up", "conv1") if residual else ("up", "conv1", "conv3")
        self.up = BicubicUp(scale)
        self.conv1 = nn.Conv2d(channels, 64, first, padding=first // 2)
        self.conv2 = nn.Conv2d(64, 32, middle, padding=middle // 2)
        self.conv3 = nn.Conv2d(32, channels, last, padding=last // 2)
        self.act = nn.ReLU()
        if residual:
            nn.init.normal_(self.conv3.weight, std=1e-3)  # starts at the bicubic image
            nn.init.zeros_(self.conv3.bias)  # type: ignore[arg-type]
        radius = first // 2 + middle // 2 + last // 2
        self.halo = BicubicUp.halo + -(-radius // scale)

    def forward(self, x: Tensor) -> Tensor:
        enlarged: Tensor = self.up(x)
        features = self.act(self.conv1(enlarged.to(self.conv1.weight.dtype)))
        features = self.act(self.conv2(features.to(self.conv2.weight.dtype)))
        out: Tensor = self.conv3(features.to(self.conv3.weight.dtype)).float()
        return enlarged + out if self.residual else out


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    options = {"kernels": [state[f"conv{n}.weight"].shape[-1] for n in (1, 2, 3)], "residual": False}
    channels = state["conv1.weight"].shape[1]
    return options if channels == 1 else options | {"channels": channels}


LAYOUTS = (
    Layout("yjn870/SRCNN-pytorch", "srcnn", ((r"conv[123]", r"\g<0>"),), _options, any_scale=True),
    Layout(
        "Lornatang/SRCNN-PyTorch",
        "srcnn",
        ((r"features\.0", "conv1"), (r"map\.0", "conv2"), (r"reconstruction", "conv3")),
        _options,
        any_scale=True,
    ),
)
