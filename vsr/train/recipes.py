"""Training recipes: what is trained, on what patches and by which schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from vsr.models.cards import ModelCard
from vsr.models.weights import build_net

__all__ = ["RECIPES", "Recipe", "card_of"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network and how to train it.

    net, options: as in a model card.
    color: "y" trains on BT.601 luma (16..235, over 255), "rgb" on RGB over 255.
    patch: side of a low-resolution training patch in pixels.  batch: patches per step.
    learning_rate: Adam's, at the start of a cosine that ends at zero.
    ema_decay: of the moving average of the weights, which is what is validated and shipped.
    mse_share: the share of the schedule, at its end, whose loss is MSE instead of L1.
    """

    name: str
    net: str
    options: dict[str, Any]
    color: Literal["y", "rgb"]
    patch: int
    batch: int
    learning_rate: float
    ema_decay: float = 0.999
    mse_share: float = 0.2

    @property
    def scale(self) -> int:
        return int(self.options["scale"])


_LUMA = {"features": 32, "depth": 5}
_LIST = (
    Recipe("fast", "luma", {**_LUMA, "scale": 4}, "y", patch=40, batch=32, learning_rate=2e-3),
    Recipe("fast-x2", "luma", {**_LUMA, "scale": 2}, "y", patch=48, batch=32, learning_rate=2e-3),
    Recipe("nano", "luma", {"features": 16, "depth": 4, "scale": 4}, "y", patch=40, batch=32, learning_rate=2e-3),
    Recipe("srcnn", "srcnn", {"scale": 4}, "y", patch=16, batch=16, learning_rate=1e-3),
    Recipe("srcnn-x2", "srcnn", {"scale": 2}, "y", patch=32, batch=16, learning_rate=1e-3),
    Recipe("vdsr", "vdsr", {"scale": 4}, "y", patch=12, batch=16, learning_rate=6e-4),
    Recipe("vdsr-x2", "vdsr", {"scale": 2}, "y", patch=24, batch=16, learning_rate=6e-4),
    Recipe("edsr", "edsr", {"scale": 4}, "rgb", patch=32, batch=16, learning_rate=4e-4),
    Recipe("srresnet", "srresnet", {"scale": 4}, "rgb", patch=32, batch=16, learning_rate=6e-4),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _LIST}


def card_of(recipe: Recipe) -> ModelCard:
    """The card of what a recipe trains, before any figure is known."""
    card = ModelCard(recipe.name, recipe.net, dict(recipe.options), recipe.scale, recipe.color, halo=0)
    net = build_net(card)
    return replace(
        card,
        halo=int(net.halo),  # type: ignore[arg-type]
        num_parameters=sum(p.numel() for p in net.parameters()),
        recipe=f"vsr train {recipe.name}",
    )
