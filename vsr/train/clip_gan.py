"""Train a video network against a discriminator that sees three frames at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.train.adversary import Adversary
from vsr.train.clip_bank import ClipBank
from vsr.train.clip_trainer import ClipTrainer
from vsr.train.clips import ClipBatch
from vsr.train.objective import Objective, PerceptualFeatures
from vsr.train.rollout import target_of
from vsr.train.video_recipes import VideoRecipe

__all__ = ["ClipGanTrainer", "aligned_triplets"]


class ClipGanTrainer(ClipTrainer):
    """Train a recurrent network by pixels, features, a discriminator and the agreement of both ways through a clip.

    After TecoGAN (Chu et al. 2020, arXiv:1811.09393). Features and discriminator see luma alone: colour is bound by a
    pixel loss, as judges find texture in colour that is not there.
    """

    def __init__(
        self,
        recipe: VideoRecipe,
        bank: ClipBank,
        device: torch.device,
        seed: int = 0,
        bf16: bool = True,
        features: PerceptualFeatures | None = None,
    ) -> None:
        super().__init__(recipe, bank, device, seed, bf16)
        assert recipe.gan is not None
        self.gan = recipe.gan
        side = recipe.patch * recipe.scale
        self.adversary = Adversary("vgg", "relativistic", side, recipe.learning_rate, device, bf16)
        self.objective = Objective(features, self.adversary)

    @property
    def is_judged_by_psnr(self) -> bool:
        return False

    def step(self, progress: float) -> dict[str, Tensor]:
        batch = self.sample(progress)
        rate = self.cosine_rate(progress)
        self.set_rate(rate)
        terms, fake, real = self._terms(batch, progress)
        self.descend(torch.stack(list(terms.values())).sum(), self.recipe.max_gradient)
        losses = {name: value.detach() for name, value in terms.items()}
        self.num_steps += 1
        if not self.num_bad_steps:
            # It learns from the start, so that its first words are worth something.
            losses["discriminator"] = self.adversary.learn(fake, real, rate)
            self.update_average()
        return losses

    def _terms(self, batch: ClipBatch, progress: float) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Compute the weighted losses; also what the discriminator sees of output and truth."""
        gan, num_frames = self.gan, batch.num_frames
        luma, chroma = self.run_along(batch.there_and_back())
        target = target_of(batch)
        there, back = luma[:num_frames], luma[num_frames - 1 :].flip(0)
        both_ways = torch.cat((target.chroma, target.chroma.flip(0)[1:]))
        terms = self.pixel_terms(progress, (there, target.luma), (chroma, both_ways))
        terms["ping-pong"] = gan.ping_pong * F.l1_loss(back, there)
        weights = {"lattice": gan.lattice, "perceptual": gan.perceptual}
        if self.objective.features is None:
            del weights["perceptual"]  # then the discriminator's own features, below
        terms |= self.objective(weights, there.flatten(0, 1), target.luma.flatten(0, 1), None, self.rng)
        fake, real = aligned_triplets(there, batch), aligned_triplets(target.luma, batch)
        if progress >= gan.begins:
            adversarial, matching = self.adversary.losses_of(fake, real)
            terms["adversarial"] = gan.adversarial * adversarial
            if self.objective.features is None:
                terms["feature matching"] = gan.perceptual * matching
        return terms, fake, real

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "adversary": self.adversary.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.adversary.load_state_dict(state["adversary"])


def aligned_triplets(luma: Tensor, batch: ClipBatch) -> Tensor:
    """Stack each frame with its neighbours, moved to it by the batch's flows, so that only what flickers differs.

    Args:
        luma: (T, N, 1, H, W), output or truth. Where a neighbour is of another scene, the frame itself stands in.
        batch: the clips whose flows they follow; low-resolution, of the same T and N.

    Returns:
        ((T − 2)·N, 3, H, W): frame before, frame, frame after.
    """
    scale = luma.shape[-1] // batch.low_luma.shape[-1]
    middle = luma[1:-1].flatten(0, 1)
    begins, ends = (x.flatten().view(-1, 1, 1, 1) for x in (batch.starts[1:-1], batch.starts[2:]))
    before = _moved(luma[:-2].flatten(0, 1), batch.to_previous[1:-1].flatten(0, 1), scale)
    after = _moved(luma[2:].flatten(0, 1), batch.to_following[1:-1].flatten(0, 1), scale)
    return torch.cat((torch.where(begins, middle, before), middle, torch.where(ends, middle, after)), 1)


def _moved(luma: Tensor, flow: Tensor, scale: int) -> Tensor:
    """Warp (N, 1, H, W) bilinearly along a low-resolution flow (N, h, w, 2); beyond the edge its pixels repeat."""
    height, width = luma.shape[-2:]
    fine = F.interpolate(flow.float().permute(0, 3, 1, 2), (height, width), mode="bilinear") * scale
    rows = torch.arange(height, device=luma.device).view(-1, 1) + fine[:, 1]
    columns = torch.arange(width, device=luma.device) + fine[:, 0]
    places = torch.stack((columns * 2 / (width - 1) - 1, rows * 2 / (height - 1) - 1), 3)
    return F.grid_sample(luma, places, mode="bilinear", padding_mode="border", align_corners=True)
