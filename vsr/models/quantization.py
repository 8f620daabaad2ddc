"""Run, calibrate and train convolutions on 8 bit integers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "QuantizedConv2d",
    "calibrate",
    "is_quantized",
    "quantized",
    "quantized_layers",
    "rounded_skips",
    "without_quantization",
]

_LOWEST, _HIGHEST = -128, 127
_NUM_SAMPLES = 1 << 16  # samples of a layer's input that each batch contributes to its calibration
_NUM_RANGES = 48  # candidate scales that are tried


class QuantizedConv2d(nn.Conv2d):
    """Convolve 8 bit integers, as float arithmetic that gives the same numbers.

    Symmetric, as TensorRT takes it: integers times a scale, no zero point. One scale for the input, which `calibrate`
    finds, and one for each output channel's weights, which makes the largest of them 127. Sums of up to 2^24 are exact
    in float32, so this gives what an int8 engine computes. Gradients pass the rounding unchanged (Bengio et al. 2013,
    arXiv:1308.3432) and stop where values are clipped.

    Input (N, C, H, W) float; output likewise, of the same dtype.
    """

    input_scale: Tensor

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__(**_shape_of(plain))
        self.weight, self.bias = plain.weight, plain.bias
        self.register_buffer("input_scale", torch.ones((), device=plain.weight.device))

    def weight_scales(self) -> Tensor:
        """Compute the scale of each output channel's integers, (C,) float32."""
        largest = self.weight.detach().float().abs().amax((1, 2, 3))
        return largest.clamp_min(torch.finfo(torch.float32).tiny * _HIGHEST) / _HIGHEST

    def weight_integers(self) -> Tensor:
        """Round the weights to int8."""
        scales = self.weight_scales()[:, None, None, None]
        return _rounded(self.weight.detach().float() / scales).to(torch.int8)

    @torch.no_grad()
    def round_weights(self) -> None:
        """Set the weights to the values of their integers; half precision then keeps the integers."""
        self.weight.copy_(self.weight_integers() * self.weight_scales()[:, None, None, None])

    def rounded(self, x: Tensor) -> Tensor:
        """Round an input to the values of its integers, as the convolution sees it."""
        return (_rounded(x.float() / self.input_scale) * self.input_scale).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        scales = self.weight_scales()
        integers = _rounded(x.float() / self.input_scale)
        weights = _rounded(self.weight.float() / scales[:, None, None, None])
        # Integers to 256 are exact in bfloat16, too: training may multiply in it.
        sums = F.conv2d(integers, weights, None, self.stride, self.padding, self.dilation, self.groups).float()
        out = sums * (self.input_scale * scales)[:, None, None]
        return (out if self.bias is None else out + self.bias[:, None, None]).to(x.dtype)


def _shape_of(layer: nn.Conv2d) -> dict[str, Any]:
    """Collect the arguments for a convolution of the same shape, without memory for weights."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    return {**{name: getattr(layer, name) for name in names}, "bias": layer.bias is not None, "device": "meta"}


def _rounded(values: Tensor) -> Tensor:
    """Round to integers, ties to even as in ONNX; the gradient is that of the clipping alone."""
    clipped = values.clamp(_LOWEST, _HIGHEST)
    return clipped + (clipped.round() - clipped).detach()


def quantized_layers(net: nn.Module) -> list[str]:
    """List the convolutions that take 8 bit integers well: all but the first, the last and those kept in floats.

    The first sees the image itself, whose 8 bits are all of it; the last makes the output, in which a step of an
    integer would show.
    """
    convolutions = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    kept = (*getattr(net, "keep_float32", ()), *getattr(net, "keep_float", ()))
    return [
        name
        for name, module in convolutions[1:-1]
        if module.padding_mode == "zeros" and not any(f"{name}.".startswith(f"{layer}.") for layer in kept)
    ]


def quantized(net: nn.Module) -> nn.Module:
    """Copy a network with the layers of `quantized_layers` as `QuantizedConv2d`, to be calibrated or loaded.

    Raises ValueError for a network that has none.
    """
    result = copy.deepcopy(net)
    names = quantized_layers(result)
    if not names:
        raise ValueError("it has no convolutions between its first and its last")
    for name in names:
        layer = result.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        result.set_submodule(name, QuantizedConv2d(layer))
    return result


def rounded_skips(net: nn.Module) -> frozenset[str]:
    """Name the blocks that add their input as the integers that their first convolution takes; see `rounds_skip`."""
    return frozenset(name for name, module in net.named_modules() if getattr(module, "rounds_skip", False))


def is_quantized(net: nn.Module) -> bool:
    """Return True if any convolution of the network computes on integers."""
    return any(isinstance(module, QuantizedConv2d) for module in net.modules())


def without_quantization(net: nn.Module) -> nn.Module:
    """Copy a network with plain convolutions of the same weights."""
    result = copy.deepcopy(net)
    for name, module in list(result.named_modules()):
        if isinstance(module, QuantizedConv2d):
            plain = nn.Conv2d(**_shape_of(module))
            plain.weight, plain.bias = module.weight, module.bias
            result.set_submodule(name, plain)
    return result


@torch.no_grad()
def calibrate(net: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...]]) -> None:
    """Set the input scale of every `QuantizedConv2d` to the one of least mean squared rounding error.

    Args:
        net: a network that `quantized` made.
        batches: float32 (N, C, H, W) samples of the network's later input, or of all its inputs. Each layer is measured
            on the float32 output of the layers before it.

    Samples are drawn by a generator of their own: the same batches give the same scales.
    """
    layers = {name: module for name, module in net.named_modules() if isinstance(module, QuantizedConv2d)}
    samples: dict[str, list[Tensor]] = {name: [] for name in layers}
    plain = without_quantization(net).eval()
    generator = torch.Generator().manual_seed(0)
    hooks = [plain.get_submodule(name).register_forward_pre_hook(_collect(samples[name], generator)) for name in layers]
    for batch in batches:
        plain(*(batch if isinstance(batch, tuple) else (batch,)))
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        layer.input_scale.fill_(_best_scale(torch.cat(samples[name])))


def _collect(samples: list[Tensor], generator: torch.Generator) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().float().flatten()
        chosen = torch.randint(values.numel(), (min(values.numel(), _NUM_SAMPLES),), generator=generator)
        samples.append(values[chosen.to(values.device)])

    return hook


def _best_scale(values: Tensor) -> float:
    """Find the scale by which integers come closest to the values; clipping a few of them can be worth it."""
    largest = float(values.abs().max())
    if largest == 0:
        return 1.0
    scales = [largest * step / _NUM_RANGES / _HIGHEST for step in range(4, _NUM_RANGES + 1)]
    errors = [float((_rounded(values / scale) * scale - values).square().mean()) for scale in scales]
    return scales[errors.index(min(errors))]
