"""Define recipes of video networks: networks, clips, losses and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from vsr.models.cards import ModelCard
from vsr.models.weights import build_net
from vsr.train.recipes import Stage

__all__ = ["VIDEO_RECIPES", "VideoGan", "VideoRecipe", "card_of_video"]

T = TypeVar("T")

# In frames. After so many the state is as good as after hundreds; `docs/training.md` has the measurement.
WARM_UP = 12
RESTART_INTERVAL = 120
# The first frame of a scene gains most from the first few; the rest of them 0.003 dB of Vid4.
RUN_IN = 6

# A loss that forgives outliers first, as occlusions are many; MSE at the end, as PSNR is what it maximises. Its weight
# brings both to about one size, which matters to the clipping of gradients.
PSNR = (Stage(0.7, {"charbonnier": 1.0}), Stage(0.3, {"mse": 30.0}))


@dataclass(frozen=True, slots=True)
class VideoGan:
    """Weigh the losses that teach a video network to draw texture, in the manner of TecoGAN (Chu et al. 2020).

    Args:
        adversarial: of a discriminator that sees three frames at a time, brought to one place by their motion.
        perceptual: of the features of each frame.
        ping_pong: L1 between a frame on the way there and on the way back, for clips are played both ways; texture that
            piles up over time differs between the two.
        lattice: of the grid that a pixel shuffle draws (`losses.lattice_l1`).
        begins: the share of the schedule (0 to 1) after which the discriminator's loss counts.
    """

    adversarial: float = 2e-3
    perceptual: float = 1.0
    ping_pong: float = 0.3
    lattice: float = 4.0
    begins: float = 0.3


@dataclass(frozen=True, slots=True)
class VideoRecipe:
    """Describe a recurrent network and its training.

    Args:
        net, options: as in a model card.
        patch: side of a low-resolution cut-out in pixels, even.
        batch: cut-outs per step.
        lengths: frames through which the error is propagated back, each with its share of the schedule.
        num_steps: length of the whole schedule, unless the user says otherwise.
        learning_rate: of the optimiser; ends at zero by half a cosine.
        optimizer: "muon" moves the kernels of the trunk by Muon and the rest by Adam (`muon.Muon`).
        stages: the losses over time (`losses.PIXEL_LOSSES`); shares sum to 1.
        chroma_weight: weight of the losses of Cb and Cr, which are taken on their own grid.
        max_gradient: norm to which gradients are clipped.
        degradation: makes low-resolution frames; a key of `video_degrade.CLIP_DEGRADATIONS`.
        init: the model whose weights it starts from.
        ema_decay: decay of the moving average of the weights, which is validated and shipped.
        clips_per_shard: clips in memory at a time.
        steps_per_shard: steps after which the clips are remade.
        gan: what a discriminator and features add to the losses; None for a network that follows PSNR alone.
    """

    name: str
    options: Mapping[str, Any]
    patch: int = 40
    batch: int = 6
    lengths: tuple[tuple[float, int], ...] = ((0.4, 8), (0.4, 12), (0.2, 15))
    num_steps: int = 60_000
    learning_rate: float = 1e-3
    stages: tuple[Stage, ...] = PSNR
    chroma_weight: float = 0.5
    max_gradient: float = 0.5
    degradation: Literal["bicubic", "gaussian", "codecs"] = "bicubic"
    init: str = ""
    ema_decay: float = 0.998
    clips_per_shard: int = 200
    steps_per_shard: int = 2000
    net: str = "recurrent"
    gan: VideoGan | None = None
    optimizer: Literal["adam", "muon"] = "adam"

    @property
    def scale(self) -> int:
        return int(self.options["scale"])

    @property
    def max_frames(self) -> int:
        """Return the number of frames of the longest cut-out."""
        return max(frames for _, frames in self.lengths)

    def frames_at(self, progress: float) -> int:
        """Return the number of frames of a cut-out at `progress` (0 to 1) of the schedule."""
        return _at(self.lengths, progress)

    def losses_at(self, progress: float) -> Mapping[str, float]:
        """Return the weights of the losses at `progress` (0 to 1) of the schedule."""
        return _at(tuple((stage.share, stage.losses) for stage in self.stages), progress)


def _at(parts: tuple[tuple[float, T], ...], progress: float) -> T:
    end = 0.0
    for share, value in parts:
        end += share
        if progress < end:
            return value
    return parts[-1][1]


# Small batches: where time is what runs out, three times as many steps are worth more than steady ones.
_FAST = VideoRecipe(
    "video-fast", {"features": 32, "blocks": 3, "scale": 4}, batch=4, learning_rate=8e-4, optimizer="muon"
)
_VIDEO = VideoRecipe(
    "video", {"features": 64, "blocks": 4, "scale": 4}, batch=2, num_steps=180_000, learning_rate=6e-4, optimizer="muon"
)


def _real(recipe: VideoRecipe, name: str) -> VideoRecipe:
    """Make the recipe that fine-tunes a network for video that went through a codec."""
    return replace(
        recipe,
        name=name,
        degradation="codecs",
        init=recipe.name,
        learning_rate=recipe.learning_rate / 2,
        num_steps=recipe.num_steps // 2,
    )


# Features and discriminator leave no room for longer clips: there and back, 6 frames are 11.
_GAN = replace(
    _real(_VIDEO, "video-gan"),
    init="video-real",
    patch=32,
    batch=2,
    lengths=((1.0, 6),),
    learning_rate=1e-4,
    num_steps=8_000,
    stages=(Stage(1.0, {"l1": 0.1}),),
    chroma_weight=3.0,
    gan=VideoGan(),
)

_LIST = (
    _FAST,
    _VIDEO,
    replace(_VIDEO, name="video-bd", degradation="gaussian", init="video", learning_rate=3e-4, num_steps=90_000),
    _real(_VIDEO, "video-real"),
    _real(_FAST, "video-real-fast"),
    _GAN,
)
VIDEO_RECIPES: dict[str, VideoRecipe] = {recipe.name: recipe for recipe in _LIST}


def card_of_video(recipe: VideoRecipe) -> ModelCard:
    """Make the card of a recipe's network, without figures yet."""
    options = dict(recipe.options)
    uses_next = bool(options.get("uses_next", True))
    card = ModelCard(
        recipe.name,
        recipe.net,
        options,
        recipe.scale,
        "yuv",
        halo=0,
        window=3 if uses_next else 2,
        recurrent=True,
        restart_interval=RESTART_INTERVAL,
        warm_up=WARM_UP,
        run_in=RUN_IN,
        both_flows=recipe.options["features"] > 32,  # beside a larger network their time does not count
        recipe=f"vsr train {recipe.name}",
    )
    net = build_net(card)
    return replace(card, halo=int(net.halo), num_parameters=sum(p.numel() for p in net.parameters()))  # type: ignore[arg-type]
