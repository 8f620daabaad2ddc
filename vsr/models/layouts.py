"""Recognise the layouts in which other code bases save the networks in `nets`, and rename weights to ours.

A layout is recognised by its key names and tensor shapes alone. Every tensor of the file must find its place in our
network and every tensor of our network must be filled, or it is not that layout.

The layouts are those of public code: leftthomas/SRGAN, Lornatang's SRGAN-, VDSR- and SRCNN-PyTorch,
sanghyun-son/EDSR-PyTorch, xinntao/ESRGAN, XPixelGroup/BasicSR, open-mmlab/mmediting, twtygqyy/pytorch-vdsr,
yjn870's SRCNN-, ESPCN- and FSRCNN-pytorch, leftthomas/ESPCN, pytorch/examples, Zheng222/IMDN, njulj/RFDN and
bytedance/RLFN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vsr.models.nets import (
    NETS,
    edsr,
    espcn,
    fsrcnn,
    imdn,
    luma,
    msrresnet,
    rfdn,
    rlfn,
    rrdb,
    srcnn,
    srgan,
    srvgg,
    vdsr,
)
from vsr.models.nets.layout import Layout, State

__all__ = ["fold_batch_norm", "recognise"]

_COUNTERS = ("num_batches_tracked", "n_averaged", "step_counter")  # counters of training, not weights

_NETS = (srgan, msrresnet, edsr, rrdb, srvgg, luma, vdsr, srcnn, espcn, fsrcnn, imdn, rfdn, rlfn)
# Our own layouts come last: foreign layouts may use the same names for other things.
LAYOUTS = sorted((layout for net in _NETS for layout in net.LAYOUTS), key=lambda layout: layout.origin == "vsr")


def recognise(state: Mapping[str, Tensor], assumed_scale: int) -> tuple[Layout, dict[str, Any], State] | None:
    """Find the layout of some weights; return it with our network's options and weights, or None.

    Args:
        state: weights by key.
        assumed_scale: scale to take for layouts whose weights do not determine it.
    """
    weights = {key: value for key, value in state.items() if not key.endswith(_COUNTERS)}
    for variant in _variants(weights):
        for layout in LAYOUTS:
            fitted = _fit(layout, variant, assumed_scale)
            if fitted is not None:
                return layout, *fitted
    return None


def fold_batch_norm(state: State, net: nn.Module) -> State:
    """Fold the batch norms of a checkpoint into the convolutions before them.

    At inference both are one linear map. Where `state` has running statistics `<prefix>bn<n>` and `net` has no such
    module, they go into `<prefix>conv<n>` (`fuse_bn` into `fuse`).
    """
    wanted = net.state_dict().keys()
    folded = dict(state)
    for key in state:
        norm, dot, last = key.rpartition(".")
        if last != "running_mean" or key in wanted:
            continue
        conv = norm.removesuffix("_bn") if norm.endswith("_bn") else norm.replace(".bn", ".conv")
        weight, bias = fuse_conv_bn_weights(
            state[f"{conv}.weight"],
            state.get(f"{conv}.bias"),
            state[f"{norm}.running_mean"],
            state[f"{norm}.running_var"],
            1e-5,
            state[f"{norm}.weight"],
            state[f"{norm}.bias"],
        )
        folded[f"{conv}.weight"], folded[f"{conv}.bias"] = weight, bias
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            folded.pop(f"{norm}{dot}{part}", None)
    return folded


# -- one layout and one file -------------------------------------------------------------------------------


def _variants(state: State) -> Iterator[State]:
    """Yield the weights as they are, then without shared prefixes, then a GAN's generator alone."""
    yield state
    shared = state
    while shared and len({key.partition(".")[0] for key in shared}) == 1 and all("." in key for key in shared):
        shared = {key.partition(".")[2]: value for key, value in shared.items()}
        yield shared
    for prefix in ("generator.", "net_g.", "netG."):
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part and len(part) < len(state):
            yield part


def _fit(layout: Layout, state: State, assumed_scale: int) -> tuple[dict[str, Any], State] | None:
    """Read our network's options and weights from `state` by a layout; None where it is of another layout."""
    renamed = _rename(layout, state)
    if renamed is None:
        return None
    try:
        renamed = layout.prepare(renamed)
        options = layout.options(renamed)
        if layout.any_scale:
            options["scale"] = assumed_scale
        if layout.alternatives:
            options |= layout.alternatives[0]
        with torch.device("meta"):
            net = NETS[layout.net](**options)
        weights = _with_biases(fold_batch_norm(renamed, net), net)
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError, RuntimeError):
        return None  # the file lacks a tensor of this layout, or its shape differs
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    return (options, weights) if shapes == {key: value.shape for key, value in weights.items()} else None


def _rename(layout: Layout, state: State) -> State | None:
    """Rename the weights to our names; return None where one has no place in our network."""
    renamed = {}
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        name = next(
            (_expand(match, ours) for theirs, ours in layout.names if (match := re.fullmatch(theirs, module))), ""
        )
        if not name or not value.is_floating_point() or value.numel() == 0:
            return None
        renamed[f"{name}.{part}"] = value.float()
    return renamed if len(renamed) == len(state) > 0 else None


def _expand(match: re.Match[str], name: str | Callable[[re.Match[str]], str]) -> str:
    return match.expand(name) if isinstance(name, str) else name(match)


def _with_biases(state: State, net: nn.Module) -> State:
    """Add zero biases to convolutions that were trained without."""
    biases = {
        key: torch.zeros(value.shape)
        for key, value in net.state_dict().items()
        if key.endswith(".bias") and key not in state and key.removesuffix("bias") + "weight" in state
    }
    return state | biases
