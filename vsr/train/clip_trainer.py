"""Train a recurrent network on cut-outs of clips, step by step."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.recurrent import RecurrentNet
from vsr.train.clip_bank import ClipBank
from vsr.train.clips import ClipBatch
from vsr.train.losses import PIXEL_LOSSES
from vsr.train.muon import Muon
from vsr.train.recipes import AnyRecipe
from vsr.train.rollout import sight_of, target_of, unroll
from vsr.train.run import Learner
from vsr.train.video_recipes import VideoRecipe, card_of_video

__all__ = ["ClipTrainer"]


class ClipTrainer(Learner):
    """Train a recurrent network on cut-outs of clips.

    On a CPU its clock counts the time of all threads of the process, so that other programs do not use up the budget.
    """

    net: RecurrentNet

    def __init__(
        self, recipe: VideoRecipe, bank: ClipBank, device: torch.device, seed: int = 0, bf16: bool = True
    ) -> None:
        self.recipe, self.bank, self.bf16 = recipe, bank, bf16
        super().__init__(recipe, card_of_video(recipe), device, seed)
        self.clock = time.process_time if device.type == "cpu" else time.monotonic

    def make_optimizer(self, recipe: AnyRecipe) -> torch.optim.Optimizer:
        if self.recipe.optimizer == "adam":
            return super().make_optimizer(recipe)
        modules = (self.net.state, *self.net.body.modules())
        trunk = {id(module.weight) for module in modules if isinstance(module, nn.Conv2d)}
        kernels = [parameter for parameter in self.net.parameters() if id(parameter) in trunk]
        others = [parameter for parameter in self.net.parameters() if id(parameter) not in trunk]
        return Muon(kernels, others, recipe.learning_rate)

    def step(self, progress: float) -> dict[str, Tensor]:
        batch = self.sample(progress)
        self.set_rate(self.cosine_rate(progress))
        target = target_of(batch)
        luma, chroma = self.run_along(batch)
        terms = self.pixel_terms(progress, (luma, target.luma), (chroma, target.chroma))
        self.descend(torch.stack(list(terms.values())).sum(), self.recipe.max_gradient)
        if not self.num_bad_steps:
            self.update_average()
        self.num_steps += 1
        return {name: value.detach() for name, value in terms.items()}

    def sample(self, progress: float) -> ClipBatch:
        """Cut clips out for the coming step, on the device."""
        self.bank.seek(self.num_steps)
        return self.bank.sample(self.recipe.batch, self.recipe.frames_at(progress), self.rng).to(self.device)

    def run_along(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Run the network along clips; return luma and the correction of chroma of all frames, as in `Target`."""
        sight = sight_of(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = list(unroll(self.net, sight))
        luma, chroma = (torch.stack(frames) for frames in zip(*outputs, strict=True))
        return luma, chroma

    def pixel_terms(
        self, progress: float, luma: tuple[Tensor, Tensor], chroma: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the recipe's weighted losses of luma and chroma, each an output and its target."""
        terms: dict[str, Tensor] = {}
        for name, weight in self.recipe.losses_at(progress).items():
            terms[name] = weight * PIXEL_LOSSES[name](*luma)
            terms[f"chroma {name}"] = self.recipe.chroma_weight * weight * PIXEL_LOSSES[name](*chroma)
        return terms

    def fitted(self, source: nn.Module, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Extend the other network's first convolution by zeros for inputs that it does not have."""
        state = dict(source.state_dict())
        name = "pixels.weight"
        if name in state and state[name].shape[1] < own[name].shape[1]:
            missing = own[name].shape[1] - state[name].shape[1]
            state[name] = F.pad(state[name], (0, 0, 0, 0, 0, missing))
        return state
