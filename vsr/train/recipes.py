"""Define training recipes: networks, patches, losses and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

from vsr.models.cards import ModelCard
from vsr.models.weights import build_net
from vsr.train.adversary import DiscriminatorName
from vsr.train.losses import AdversarialKind

__all__ = ["RECIPES", "AnyRecipe", "Recipe", "Stage", "card_of"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Describe a part of the schedule: its share of the whole, and the weights of its losses (`objective.TERMS`)."""

    share: float
    losses: Mapping[str, float]


# L1 first, as it converges faster; MSE at the end, as PSNR is what it maximises.
PSNR = (Stage(0.8, {"l1": 1.0}), Stage(0.2, {"mse": 1.0}))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Describe a network and its training.

    Args:
        net, options: as in a model card.
        color: "y" trains on BT.601 luma (16..235, over 255), "rgb" on RGB over 255.
        patch: side of a low-resolution training patch in pixels.
        batch: patches per step.
        num_steps: length of the whole schedule, unless the user says otherwise.
        learning_rate: Adam's, of generator and discriminator.
        schedule: "cosine" ends at zero.
        stages: the losses over time; shares sum to 1.
        degradation: a key of `degrade.DEGRADATIONS`.
        init: the model whose weights it starts from.
        discriminator, adversarial: discriminator and its kind of loss, for the losses "adversarial", "feature_matching"
            and "perceptual".
        ema_decay: decay of the moving average of the weights, which is validated and shipped.
        quantized: True where the network is trained as `quantization.quantized` makes it, for int8.
        judges_luma_only: True where features and discriminator see the output's luma with the target's colour.
    """

    name: str
    net: str
    options: Mapping[str, Any]
    color: Literal["y", "rgb"]
    patch: int
    batch: int
    num_steps: int
    learning_rate: float
    schedule: Literal["cosine", "constant"] = "cosine"
    stages: tuple[Stage, ...] = PSNR
    degradation: Literal["bicubic", "gaussian", "video", "mixed"] = "bicubic"
    init: str = ""
    discriminator: DiscriminatorName | None = None
    adversarial: AdversarialKind = "vanilla"
    ema_decay: float = 0.999
    quantized: bool = False
    judges_luma_only: bool = False

    @property
    def scale(self) -> int:
        return int(self.options["scale"])

    def losses_at(self, progress: float) -> Mapping[str, float]:
        """Return the weights of the losses at `progress` (0 to 1) of the schedule."""
        end = 0.0
        for stage in self.stages:
            end += stage.share
            if progress < end:
                return stage.losses
        return self.stages[-1].losses


class AnyRecipe(Protocol):
    """List the fields that every run needs of its recipe; recipes are dataclasses."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def ema_decay(self) -> float: ...


def _luma(name: str, features: int, depth: int, scale: int, patch: int, **more: Any) -> Recipe:
    options = {"features": features, "depth": depth, "scale": scale}
    return Recipe(name, "luma", options, "y", patch, 32, learning_rate=2e-3, **more)


# Pixels and perception first, as that takes half the time of a step; then with the adversary. The sum is that of
# Ledig et al., with L1 for MSE as in ESRGAN, and held back from drawing a grid, which features hardly see.
# Colour is bound to the target: where features and adversary saw it too, the network wove a coloured mesh over
# compressed video, which no training image had shown it.
_SRGAN = (
    Stage(0.6, {"l1": 0.1, "chroma": 0.3, "perceptual": 1.0, "lattice": 4.0}),
    Stage(0.4, {"l1": 0.1, "chroma": 0.3, "perceptual": 1.0, "lattice": 4.0, "adversarial": 2e-3}),
)

# w1·MSE + w2·VGG + 10⁻³·adversarial: pixels first, then both, then perception; 15k, 5k and 15k steps of 35k.
_PERPIX = (
    Stage(15 / 35, {"mse": 10.0, "perceptual": 1.0, "adversarial": 1e-3}),
    Stage(5 / 35, {"mse": 10.0, "perceptual": 10.0, "adversarial": 1e-3}),
    Stage(15 / 35, {"mse": 1.0, "perceptual": 10.0, "adversarial": 1e-3}),
)


def _int8(recipe: Recipe) -> Recipe:
    """Make the recipe that fine-tunes a trained network for int8: MSE alone, at a tenth of the learning rate."""
    return replace(
        recipe,
        name=f"{recipe.name}-int8",
        num_steps=800,
        learning_rate=recipe.learning_rate / 10,
        stages=(Stage(1.0, {"mse": 1.0}),),
        init=recipe.name,
        ema_decay=0.99,
        quantized=True,
    )


_FAST = _luma("fast", 32, 5, scale=4, patch=40, num_steps=16_000)
_FAST_X2 = _luma("fast-x2", 32, 5, scale=2, patch=48, num_steps=16_000)
_FAST_REAL = replace(
    _luma("fast-real", 32, 5, scale=4, patch=40, num_steps=8_000), learning_rate=5e-4, degradation="video", init="fast"
)
_NANO = _luma("nano", 16, 4, scale=4, patch=40, num_steps=14_000)
_LIST = (
    _FAST,
    _int8(_FAST),
    _FAST_X2,
    _int8(_FAST_X2),
    _FAST_REAL,
    _int8(_FAST_REAL),
    _NANO,
    _int8(_NANO),
    Recipe("srcnn", "srcnn", {"scale": 4}, "y", 16, 16, num_steps=20_000, learning_rate=1e-3),
    Recipe("srcnn-x2", "srcnn", {"scale": 2}, "y", 32, 16, num_steps=20_000, learning_rate=1e-3),
    Recipe("vdsr", "vdsr", {"scale": 4}, "y", 12, 16, num_steps=16_000, learning_rate=6e-4),
    Recipe("vdsr-x2", "vdsr", {"scale": 2}, "y", 24, 16, num_steps=4_000, learning_rate=4e-4, init="vdsr"),
    Recipe("srresnet", "srresnet", {"scale": 4}, "rgb", 32, 16, num_steps=20_000, learning_rate=6e-4),
    Recipe("edsr", "edsr", {"scale": 4}, "rgb", 32, 16, num_steps=20_000, learning_rate=4e-4, init="srresnet"),
    Recipe(
        "srgan",
        "srresnet",
        {"scale": 4},
        "rgb",
        patch=32,
        batch=8,
        num_steps=10_000,
        learning_rate=5e-4,
        stages=_SRGAN,
        degradation="mixed",
        init="srresnet",
        discriminator="vgg",
        adversarial="relativistic",
        judges_luma_only=True,
    ),
    Recipe(
        "srgan-perpix",
        "srresnet",
        {"scale": 4},
        "rgb",
        patch=24,
        batch=8,
        num_steps=35_000,
        learning_rate=1e-4,
        schedule="constant",
        stages=_PERPIX,
        init="srresnet",
        discriminator="vgg",
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _LIST}


def card_of(recipe: Recipe) -> ModelCard:
    """Make the card of a recipe's network, without figures yet."""
    card = ModelCard(
        recipe.name,
        recipe.net,
        dict(recipe.options),
        recipe.scale,
        recipe.color,
        halo=0,
        quantized=recipe.quantized,
    )
    net = build_net(card)
    return replace(
        card,
        halo=int(net.halo),  # type: ignore[arg-type]
        num_parameters=sum(p.numel() for p in net.parameters()),
        recipe=f"vsr train {recipe.name}",
    )
