"""Interpolate between the weights of `srresnet` (faithful) and `srgan` (sharp)."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from vsr.errors import OptionError
from vsr.models.cards import ModelCard
from vsr.models.weights import load_net, resolve

__all__ = ["FAITHFUL", "SHARP", "load_interpolated"]

FAITHFUL, SHARP = "srresnet", "srgan"


def load_interpolated(fidelity: float) -> tuple[ModelCard, nn.Module]:
    """Load the network that lies between `srgan` and `srresnet` at the given fidelity.

    Args:
        fidelity: 0 gives `srgan`, the sharpest; 1 gives `srresnet`, of the highest PSNR.

    Interpolates every weight, as Wang et al. 2018 do (ESRGAN, arXiv:1809.00219). This works because `srgan` was trained
    from `srresnet`. Raises OptionError outside 0..1.
    """
    if not 0 <= fidelity <= 1:
        raise OptionError(f"`fidelity={fidelity:g}`: must lie between 0 (srgan) and 1 (srresnet)")
    card, path = resolve(SHARP)
    net = load_net(card, path)
    faithful = load_net(*resolve(FAITHFUL)).state_dict()
    blended = {key: value.lerp(faithful[key], fidelity) for key, value in net.state_dict().items()}
    net.load_state_dict(blended)
    name = f"{SHARP} at fidelity {fidelity:g}"
    return replace(card, name=name, sha256="", figures={}, recipe=f"{SHARP} and {FAITHFUL}, interpolated"), net
