"""Compute features of images for perceptual losses and the LPIPS distance, by fixed networks.

These networks are never shipped: the caller provides their weights.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vsr.errors import ModelError

__all__ = [
    "SqueezeNetFeatures",
    "VGG19Features",
    "load_frozen",
    "load_squeezenet",
    "load_vgg19",
    "part_of",
    "read_state",
]

_Net = TypeVar("_Net", bound=nn.Module)

_SQUEEZENET_TAPS = (1, 4, 7, 9, 10, 11, 12)
_VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, convolutions
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Fire(nn.Module):
    """Squeeze to few channels by 1×1 convolutions, then expand by 1×1 and 3×3 side by side (SqueezeNet's module)."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), 1))


class SqueezeNetFeatures(nn.Module):
    """Compute the feature maps of SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360).

    Layer numbers are torchvision's. Input (N, 3, H, W) float32 RGB in [0, 1], H and W at least 17; the normalisation is
    expected inside the first convolution. Output: the 7 maps that LPIPS v0.1 compares, (N, C, h, w) ≥ 0, with C = 64,
    128, 256, 384, 384, 512, 512 at about 1/2, 1/4, 1/8 and four times 1/16 of the size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        taps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in _SQUEEZENET_TAPS:
                taps.append(x)
        return taps


class VGG19Features(nn.Module):
    """Compute VGG19's block5_conv4 before its activation, the φ5,4 of ESRGAN and (activated) of SRGAN.

    Simonyan & Zisserman 2014, arXiv:1409.1556; torchvision's `features.0` to `features.34`.
    Input (N, 3, H, W) float32 RGB in [0, 1], H and W at least 16, normalised inside as ImageNet was;
    output (N, 512, H // 16, W // 16), of either sign.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, depth in _VGG19_BLOCKS:
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers[:-2])
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.features((x - self.get_buffer("mean")) / self.get_buffer("std"))
        return out


def load_squeezenet(path: Path) -> SqueezeNetFeatures:
    """Load SqueezeNet's trunk from a file with `features.*`, its normalisation folded into the first convolution.

    The network is frozen and in eval mode; gradients flow to the input. Raises ModelError where the file does not fit.
    """
    wanted = "SqueezeNet 1.1 in torchvision's layout (features.0 to features.12)"
    return load_frozen(SqueezeNetFeatures(), part_of(read_state(path), "features."), path, wanted)


def load_vgg19(path: Path) -> VGG19Features:
    """Load VGG19 from a .safetensors or .pth file in torchvision's layout; its classifier is not needed.

    The network is frozen and in eval mode; gradients flow to the input. Raises ModelError where the file does not fit.
    """
    wanted = "VGG19 without batch norm in torchvision's layout (features.0 to features.34)"
    return load_frozen(VGG19Features(), part_of(read_state(path), "features."), path, wanted)


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key: value.float() for key, value in state.items() if key.startswith(prefix)}


def load_frozen(net: _Net, state: dict[str, Tensor], path: Path, wanted: str) -> _Net:
    """Load weights into a network and freeze it.

    Args:
        net: the network to fill.
        state: weights by key.
        path: their file, for the message.
        wanted: name of the expected layout, for the message.

    Raises ModelError where network and weights do not match one to one.
    """
    expected = net.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        if key not in state or key not in expected or state[key].shape != expected[key].shape:
            fault = f"lacks {key}" if key not in state else f"{key} of shape {tuple(state[key].shape)} does not belong"
            raise ModelError(f"{path}: not {wanted}: {fault}")
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or a pickled .pth file without executing it."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{path}: not a file of weights ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path}: not a file of weights: a dictionary of tensors was expected")
    return state
