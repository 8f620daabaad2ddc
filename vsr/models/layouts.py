"""How other code bases name the weights of the networks in `nets`: recognise a layout and rename it to ours.

A layout is recognised by its key names and tensor shapes alone. Every tensor of the file must find its place
in our network and every tensor of our network must be filled, or it is not that layout.

Facts about the layouts are those of the public definitions: leftthomas/SRGAN, Lornatang's SRGAN-, VDSR- and
SRCNN-PyTorch, sanghyun-son/EDSR-PyTorch, xinntao/ESRGAN, XPixelGroup/BasicSR, open-mmlab/mmediting,
twtygqyy/pytorch-vdsr and yjn870/SRCNN-pytorch.

VDSR and SRCNN get luma as those were trained on it, BT.601 from 16 to 235, over 255. Weights trained on
full-range luma load as well, and see a picture of a little less contrast than they are used to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vsr.models.nets import NETS

__all__ = ["Layout", "State", "fold_batch_norm", "recognise"]

State = dict[str, Tensor]  # weights by key

_DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # as in `nets.edsr`
_COUNTERS = ("num_batches_tracked", "n_averaged", "step_counter")  # of training; no weights


@dataclass(frozen=True, slots=True)
class Layout:
    """How one code base saves one network.

    origin: the code base.  net: a key of `NETS`.
    names: pattern of a module's name (its keys without ".weight" and so on) and its name in our network;
        the first that matches the whole name counts.
    options: the arguments of our network's constructor, read from the renamed weights' shapes.
    prepare: what else has to be done to the renamed weights. Raises ValueError where they do not allow it.
    any_scale: the weights do not tell the scale, as the network works on an enlarged picture.
    """

    origin: str
    net: str
    names: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    options: Callable[[State], dict[str, Any]]
    prepare: Callable[[State], State] = lambda state: state
    any_scale: bool = False


def recognise(state: Mapping[str, Tensor], assumed_scale: int) -> tuple[Layout, dict[str, Any], State] | None:
    """The layout of some weights, our network's options and its weights; None for an unknown layout.

    assumed_scale: the scale of layouts whose weights do not tell it.
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

    Wherever `state` has running statistics `<prefix>bn<n>` that `net` has no module for, they go into
    `<prefix>conv<n>` (`fuse_bn` into `fuse`), as at inference both are one linear map.
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
    """The weights as they are, without prefixes that all keys share, and the generator's of a GAN's alone."""
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
    """Options and weights of our network, where the layout is that of the weights."""
    renamed = _rename(layout, state)
    if renamed is None:
        return None
    try:
        renamed = layout.prepare(renamed)
        options = layout.options(renamed)
        if layout.any_scale:
            options["scale"] = assumed_scale
        with torch.device("meta"):
            net = NETS[layout.net](**options)
        weights = _with_biases(fold_batch_norm(renamed, net), net)
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError, RuntimeError):
        return None  # something that a file of this layout has is missing, or of another shape
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    return (options, weights) if shapes == {key: value.shape for key, value in weights.items()} else None


def _rename(layout: Layout, state: State) -> State | None:
    """The weights under our names; None where one has no place in our network."""
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
    """Convolutions that were trained without bias get one of zeros."""
    biases = {
        key: torch.zeros(value.shape)
        for key, value in net.state_dict().items()
        if key.endswith(".bias") and key not in state and key.removesuffix("bias") + "weight" in state
    }
    return state | biases


def _numbered(name: str, factor: int = 1, offset: int = 0) -> Callable[[re.Match[str]], str]:
    """`name` with the pattern's groups, the first of them a number that we count differently from them."""
    return lambda match: name.format(int(match[1]) * factor + offset, *match.groups()[1:])


# -- reading shapes ----------------------------------------------------------------------------------------


def _convolutions(state: State, module: str) -> list[Tensor]:
    """The convolutions' weights, in order, of a module whose layers are numbered."""
    found = {}
    for key, value in state.items():
        match = re.fullmatch(rf"{module}\.(\d+)\.weight", key)
        if match is not None and value.dim() == 4:
            found[int(match[1])] = value
    return [found[number] for number in sorted(found)]


def _num_blocks(state: State) -> int:
    return len({match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))})


def _shuffle_scale(weights: list[Tensor]) -> int:
    """The product of the pixel shuffles that these convolutions feed."""
    return math.prod(math.isqrt(weight.shape[0] // weight.shape[1]) for weight in weights)


def _srresnet(state: State) -> dict[str, Any]:
    """A tail of one convolution is our light form; more are the paper's, which has no residual."""
    features, _, head_kernel, _ = state["head.0.weight"].shape
    *steps, last = _convolutions(state, "tail")
    return {
        "features": features,
        "num_blocks": _num_blocks(state),
        "scale": _shuffle_scale(steps) if steps else math.isqrt(last.shape[0] // 3),
        "tail": "classic" if steps else "shuffle",
        "head_kernel": head_kernel,
        "residual": not steps,
    }


def _srgan(state: State) -> dict[str, Any]:
    return _srresnet(state) | {"fuse_act": "fuse_act.weight" in state, "tanh_output": True}


def _msrresnet(state: State) -> dict[str, Any]:
    scale = _shuffle_scale(_convolutions(state, "up"))
    return {"features": state["head.weight"].shape[0], "num_blocks": _num_blocks(state), "scale": scale}


def _edsr(state: State) -> dict[str, Any]:
    features = state["head.0.weight"].shape[0]
    return {
        "features": features,
        "num_blocks": _num_blocks(state),
        "scale": _shuffle_scale(_convolutions(state, "up")),
        "residual_scale": 0.1 if features >= 256 else 1.0,  # the paper's; the weights do not tell
    }


def _rrdb(state: State) -> dict[str, Any]:
    features, in_channels = state["head.weight"].shape[:2]
    unshuffle = math.isqrt(in_channels // 3)
    return {
        "features": features,
        "num_blocks": _num_blocks(state),
        "growth": state["blocks.0.dense1.conv1.weight"].shape[0],
        "scale": 2 ** len(_convolutions(state, "up")) // unshuffle,
        "unshuffle": unshuffle,
    }


def _srvgg(state: State) -> dict[str, Any]:
    first, *body, last = _convolutions(state, "body")
    return {"features": first.shape[0], "depth": len(body), "scale": math.isqrt(last.shape[0] // 3)}


def _luma(state: State) -> dict[str, Any]:
    first, *body = _convolutions(state, "body")
    return {"features": first.shape[0], "depth": len(body), "scale": math.isqrt(state["tail.weight"].shape[0])}


def _vdsr(state: State) -> dict[str, Any]:
    body = _convolutions(state, "body")
    return {"features": body[0].shape[0], "depth": len(body) + 1}


def _srcnn(state: State) -> dict[str, Any]:
    return {"kernels": [state[f"conv{n}.weight"].shape[-1] for n in (1, 2, 3)], "residual": False}


# -- more than names ---------------------------------------------------------------------------------------


def _move(state: State, old: str, new: str) -> State:
    """The weights with module `old` called `new`. Raises ValueError where there is one of that name."""
    moved = {new + key.removeprefix(old) if key.startswith(f"{old}.") else key: value for key, value in state.items()}
    if len(moved) < len(state):
        raise ValueError(f"two modules {new}")
    return moved


def _number_output(state: State) -> State:
    """SRResNet's output convolution follows the steps of its tail, three layers each."""
    return _move(state, "output", f"tail.{3 * len(_convolutions(state, 'tail'))}")


def _name_fuse_next(state: State) -> State:
    """After SRResNet's last low-resolution convolution there is a batch norm or, in early versions, a PReLU."""
    name = "fuse_bn" if "fuse_next.running_mean" in state else "fuse_act"
    return _number_output(_move(state, "fuse_next", name))


def _end_body(state: State) -> State:
    """The last of VDSR's numbered layers is the one we call the tail."""
    last = max(int(match[1]) for key in state if (match := re.match(r"body\.(\d+)\.", key)))
    return _move(state, f"body.{last}", "tail")


def _number_esrgan(state: State) -> State:
    """The old ESRGAN numbers layers from 0, activations and enlargings included: ×2 steps of three, then two."""
    numbers = sorted({int(match[1]) for key in state if (match := re.match(r"layer\.(\d+)\.", key))})
    num_steps = len(numbers) - 2
    if numbers != [*range(3, 3 * num_steps + 1, 3), 3 * num_steps + 2, 3 * num_steps + 4]:
        raise ValueError(f"layers {numbers} are not those of an ESRGAN")
    names = [*(f"up.{step}" for step in range(num_steps)), "hr", "tail"]
    for number, name in zip(numbers, names, strict=True):
        state = _move(state, f"layer.{number}", name)
    return state


def _from_range_255(state: State) -> State:
    """Make a ReLU network for [0, 255] one for [0, 1]: exact, as it is homogeneous but for its biases."""
    return {key: value / 255 if key.endswith(".bias") else value for key, value in state.items()}


def _without_mean_shift(state: State) -> State:
    """Take out the fixed convolutions that move the mean, after a look at what mean and range they are for."""
    rest = {key: value for key, value in state.items() if not key.startswith(("sub_mean.", "add_mean."))}
    if len(rest) == len(state):
        return _from_range_255(rest)  # the published networks' range
    mean, shift = torch.tensor(_DIV2K_MEAN), state["add_mean.bias"]
    peak = 255.0 if shift.max() > 1 else 1.0
    unit = torch.eye(3).view(3, 3, 1, 1)
    expected = {"sub_mean.bias": -peak * mean, "add_mean.bias": peak * mean, "sub_mean.weight": unit}
    for key, value in (expected | {"add_mean.weight": unit}).items():
        if not torch.allclose(state[key], value, rtol=1e-3, atol=0):
            raise ValueError(f"{key} is not for DIV2K's mean colour")
    return _from_range_255(rest) if peak > 1 else rest


# -- the layouts -------------------------------------------------------------------------------------------

_SAME = ((r".+", r"\g<0>"),)
_DENSE = r"(\d+)\.(?:rdb|RDB)([123])\.(conv[1-5])"

LAYOUTS = (
    Layout(
        "leftthomas/SRGAN",
        "srresnet",
        (
            (r"block1\.([01])", r"head.\1"),
            (r"block([2-6])\.prelu", _numbered("blocks.{}.act", offset=-2)),
            (r"block([2-6])\.(conv[12]|bn[12])", _numbered("blocks.{}.{}", offset=-2)),
            (r"block7\.0", "fuse"),
            (r"block7\.1", "fuse_next"),
            (r"block8\.(\d)\.conv", _numbered("tail.{}", 3)),
            (r"block8\.(\d)\.prelu", _numbered("tail.{}", 3, 2)),
            (r"block8\.\d", "output"),
        ),
        _srgan,
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
            (r"upsampling\.(\d+)\.upsample_block\.0", _numbered("tail.{}", 3)),
            (r"upsampling\.(\d+)\.upsample_block\.2", _numbered("tail.{}", 3, 2)),
            (r"conv(?:_block)?3", "output"),
        ),
        _srresnet,
        _number_output,
    ),
    Layout(
        "BasicSR's MSRResNet",
        "msrresnet",
        (
            (r"conv_first", "head"),
            (r"(?:body|recon_trunk|trunk_net)\.(\d+)\.(conv[12])", r"blocks.\1.\2"),
            (r"upconv([12])", _numbered("up.{}", 3, -3)),
            (r"upsample([12])\.upsample_conv", _numbered("up.{}", 3, -3)),
            (r"conv_hr|HRconv", "hr"),
            (r"conv_last", "tail"),
        ),
        _msrresnet,
    ),
    Layout(
        "sanghyun-son/EDSR-PyTorch",
        "edsr",
        (
            (r"sub_mean|add_mean", r"\g<0>"),
            (r"head\.0", "head.0"),
            (r"body\.(\d+)\.body\.0", r"blocks.\1.conv1"),
            (r"body\.(\d+)\.body\.2", r"blocks.\1.conv2"),
            (r"body\.\d+", "fuse"),
            (r"tail\.0\.(\d+)", r"up.\1"),
            (r"tail\.1", "tail"),
        ),
        _edsr,
        _without_mean_shift,
    ),
    Layout(
        "BasicSR's EDSR",
        "edsr",
        (
            (r"conv_first", "head.0"),
            (r"body\.(\d+)\.(conv[12])", r"blocks.\1.\2"),
            (r"conv_after_body", "fuse"),
            (r"upsample\.(\d+)", r"up.\1"),
            (r"upsample\.(\d+)\.upsample_conv", _numbered("up.{}", 2)),
            (r"conv_last", "tail"),
        ),
        _edsr,
        _from_range_255,
    ),
    Layout(
        "ESRGAN's RRDBNet",
        "rrdb",
        (
            (r"conv_first", "head"),
            (rf"(?:body|RRDB_trunk)\.{_DENSE}", r"blocks.\1.dense\2.\3"),
            (r"conv_body|trunk_conv", "fuse"),
            (r"(?:conv_up|upconv)(\d)", _numbered("up.{}", offset=-1)),
            (r"conv_hr|HRconv", "hr"),
            (r"conv_last", "tail"),
        ),
        _rrdb,
    ),
    Layout(
        "ESRGAN's RRDBNet, old names",
        "rrdb",
        (
            (r"model\.0", "head"),
            (rf"model\.1\.sub\.{_DENSE}\.0", r"blocks.\1.dense\2.\3"),
            (r"model\.1\.sub\.\d+", "fuse"),
            (r"model\.(\d+)", r"layer.\1"),
        ),
        _rrdb,
        _number_esrgan,
    ),
    Layout("Real-ESRGAN's compact SRVGG", "srvgg", ((r"body\.\d+", r"\g<0>"),), _srvgg),
    Layout(
        "twtygqyy/pytorch-vdsr",
        "vdsr",
        (
            (r"input", "body.0"),
            (r"residual_layer\.(\d+)\.conv", _numbered("body.{}", 2, 2)),
            (r"output", "tail"),
        ),
        _vdsr,
        any_scale=True,
    ),
    Layout(
        "twtygqyy/pytorch-vdsr, old names",
        "vdsr",
        ((r"features\.(\d+)", r"body.\1"),),
        _vdsr,
        _end_body,
        any_scale=True,
    ),
    Layout(
        "Lornatang/VDSR-PyTorch",
        "vdsr",
        ((r"conv1\.0", "body.0"), (r"trunk\.(\d+)\.conv", _numbered("body.{}", 2, 2)), (r"conv2", "tail")),
        _vdsr,
        any_scale=True,
    ),
    Layout("yjn870/SRCNN-pytorch", "srcnn", ((r"conv[123]", r"\g<0>"),), _srcnn, any_scale=True),
    Layout(
        "Lornatang/SRCNN-PyTorch",
        "srcnn",
        ((r"features\.0", "conv1"), (r"map\.0", "conv2"), (r"reconstruction", "conv3")),
        _srcnn,
        any_scale=True,
    ),
    Layout("vsr", "srresnet", _SAME, _srresnet),
    Layout("vsr", "msrresnet", _SAME, _msrresnet),
    Layout("vsr", "edsr", _SAME, _edsr),
    Layout("vsr", "rrdb", _SAME, _rrdb),
    Layout("vsr", "luma", _SAME, _luma),
    Layout("vsr", "vdsr", _SAME, _vdsr, any_scale=True),
)
