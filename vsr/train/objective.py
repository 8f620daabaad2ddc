"""Combine named losses into the weighted sum that a generator minimises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.models.perceptual import VGG19Features, load_vgg19
from vsr.quality.lpips import LPIPS, load_lpips
from vsr.train.adversary import Adversary
from vsr.train.losses import PIXEL_LOSSES, artefact_map, lpips_loss, vgg_loss, with_chroma_of

__all__ = ["TERMS", "Objective", "PerceptualFeatures", "load_features"]

TERMS = (*PIXEL_LOSSES, "perceptual", "feature_matching", "adversarial", "ldl")
PerceptualFeatures = VGG19Features | LPIPS


def load_features(vgg: Path | None, squeezenet: Path | None, device: torch.device) -> PerceptualFeatures | None:
    """Load the network behind the "perceptual" loss; return None if no file is given."""
    if vgg is not None:
        return load_vgg19(vgg).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    if squeezenet is not None:
        return load_lpips(squeezenet).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return None


class Objective:
    """Compute the losses of a recipe.

    "perceptual" is the distance of VGG19's features or LPIPS on SqueezeNet's, or, if neither network is given, the
    matching of the discriminator's own features, which needs no download.
    """

    def __init__(
        self, features: PerceptualFeatures | None, adversary: Adversary | None, judges_luma_only: bool = False
    ) -> None:
        self.features, self.adversary, self.judges_luma_only = features, adversary, judges_luma_only

    def judged(self, out: Tensor, target: Tensor) -> Tensor:
        """Return the image that features and discriminator see in the place of `out`."""
        return with_chroma_of(target, out) if self.judges_luma_only else out

    def __call__(
        self,
        weights: Mapping[str, float],
        out: Tensor,
        target: Tensor,
        average: Tensor | None,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Compute each loss of a (N, C, H, W) output times its weight; their sum is to be minimised.

        Args:
            weights: weights by name of the loss.
            out, target: (N, C, H, W) images.
            average: the output of the moving average, with which "ldl" compares.
            rng: moves the grid on which the features are taken.
        """
        terms: dict[str, Tensor] = {}
        for name in weights:
            if name in PIXEL_LOSSES:
                terms[name] = PIXEL_LOSSES[name](out, target)
        if "ldl" in weights and average is not None:
            worth = artefact_map(out, average, target)
            terms["ldl"] = F.l1_loss(worth * out, worth * target)
        if self.adversary is not None and self.needs_adversary(weights):
            seen = self.judged(out, target)
            terms["adversarial"], terms["feature_matching"] = self.adversary.losses_of(seen, target)
        if "perceptual" in weights:
            terms["perceptual"] = self._perceptual(self.judged(out, target), target, terms, rng)
        return {name: weights[name] * terms[name] for name in weights}

    def needs_adversary(self, weights: Mapping[str, float]) -> bool:
        """Return True if any loss is the discriminator's; it need not learn while none is."""
        wanted = {"adversarial", "feature_matching"} | ({"perceptual"} if self.features is None else set())
        return not wanted.isdisjoint(weights)

    def _perceptual(self, out: Tensor, target: Tensor, terms: Mapping[str, Tensor], rng: np.random.Generator) -> Tensor:
        if self.features is None:
            return terms["feature_matching"]
        # Both networks look at every second or fourth pixel; on a fixed grid the generator would draw that grid.
        top, left = (int(shift) for shift in rng.integers(8, size=2))
        rgb, wanted = (x[..., top:, left:].expand(-1, 3, -1, -1) for x in (out, target))
        if isinstance(self.features, VGG19Features):
            return vgg_loss(self.features, rgb, wanted)
        return lpips_loss(self.features, rgb, wanted)
