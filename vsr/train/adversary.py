"""Train a discriminator beside the generator: its network, its optimiser and its half of every step."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from vsr.models.nets.discriminators import UNetDiscriminator, VGGDiscriminator
from vsr.train.losses import AdversarialKind, discriminator_loss, feature_matching, generator_loss

__all__ = ["Adversary", "DiscriminatorName"]

DiscriminatorName = Literal["vgg", "unet"]


class Adversary:
    """Learn to tell generated images from real ones, and turn that into losses for the generator.

    Args:
        side: side of a high-resolution patch in pixels. Images are (N, 3, side, side) float32, or (N, 1, ...) luma.
    """

    def __init__(
        self,
        name: DiscriminatorName,
        kind: AdversarialKind,
        side: int,
        learning_rate: float,
        device: torch.device,
        bf16: bool,
    ) -> None:
        net: nn.Module = VGGDiscriminator(side) if name == "vgg" else UNetDiscriminator()
        self.net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.kind, self.learning_rate, self.device, self.bf16 = kind, learning_rate, device, bf16
        self.optimizer = torch.optim.Adam(net.parameters(), learning_rate, betas=(0.9, 0.99), fused=True)

    def _judge(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits, activations = self.net(images.expand(-1, 3, -1, -1))
        return logits.float(), activations

    def losses_of(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the generator's adversarial loss and its feature-matching loss; the discriminator is not changed."""
        self.net.requires_grad_(False)
        logits, activations = self._judge(fake)
        with torch.no_grad():
            real_logits, real_activations = self._judge(real)
        self.net.requires_grad_(True)
        return generator_loss(self.kind, logits, real_logits), feature_matching(activations, real_activations)

    def learn(self, fake: Tensor, real: Tensor, rate: float) -> Tensor:
        """Move the discriminator by one step at `rate` times its learning rate. Returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate
        loss = discriminator_loss(self.kind, self._judge(fake.detach())[0], self._judge(real)[0])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
