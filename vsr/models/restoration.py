"""Interpolate between the clean and the real form of a network: faithful, or rid of what codecs leave behind."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from vsr.errors import OptionError
from vsr.models.cards import ModelCard
from vsr.models.weights import load_net, resolve

__all__ = ["REAL_FORMS", "clean_form", "load_restored"]

# The real form was trained from the clean one.
REAL_FORMS = {"fast": "fast-real", "video-fast": "video-real-fast", "video": "video-real"}


def clean_form(model: str) -> str | None:
    """Return the clean form of a network that has two forms, by the name of either; None for any other."""
    return next((clean for clean, real in REAL_FORMS.items() if model in (clean, real)), None)


def load_restored(model: str, restore: float) -> tuple[ModelCard, nn.Module]:
    """Load the network that lies between the clean and the real form of a model.

    Interpolates every weight, as `fidelity` does. Raises OptionError for a model without two forms.

    Args:
        model: name of either form.
        restore: 0 gives the clean form, faithful to every pixel; 1 the real one, which removes most.
    """
    clean = clean_form(model)
    if clean is None:
        raise OptionError(f"`restore={restore:g}`: '{model}' has no real form; {', '.join(REAL_FORMS)} have")
    real_card, path = resolve(REAL_FORMS[clean])
    net = load_net(real_card, path)
    card, path = resolve(clean)
    own = load_net(card, path).state_dict()
    net.load_state_dict({key: own[key].lerp(value, restore) for key, value in net.state_dict().items()})
    name = f"{clean} at restore {restore:g}"
    blended = replace(
        real_card,
        name=name,
        sha256="",
        figures={},
        int8_weights="",
        recipe=f"{clean} and {real_card.name}, interpolated",
    )
    return blended, net
