from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.train.adversary import Adversary
from vsr.train.losses import (
    PIXEL_LOSSES,
    artefact_map,
    charbonnier,
    chroma_l1,
    discriminator_loss,
    feature_matching,
    fft_l1,
    generator_loss,
    lattice_l1,
)
from vsr.train.objective import TERMS, Objective


def images(seed: int, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [name for name in PIXEL_LOSSES if name != "lattice"])
def test_pixel_losses_are_least_at_the_target_and_pull_towards_it(name: str) -> None:
    target = images(1)
    near, far = target + 0.01, target + 0.1
    loss = PIXEL_LOSSES[name]
    assert loss(target, target) < loss(near, target) < loss(far, target)
    out = far.requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(out, target), out)
    assert gradient.mean() > 0  # downhill is towards the target


def test_charbonnier_is_l1_far_from_zero_and_epsilon_at_it() -> None:
    zero = torch.zeros(1, 1, 4, 4)
    assert charbonnier(zero + 0.5, zero).item() == pytest.approx(0.5, rel=1e-4)
    assert charbonnier(zero, zero, epsilon=1e-3).item() == pytest.approx(1e-3, rel=1e-4)


def test_fft_loss_sees_one_wave_as_one_coefficient() -> None:
    x = torch.cos(2 * math.pi * torch.arange(16) / 8).expand(1, 1, 16, 16)
    # Amplitude 1 over 16x16 pixels: 16·16/2 in one coefficient, over 16 by the orthonormal scaling; the
    # half spectrum has 16x9 complex numbers.
    assert fft_l1(x, torch.zeros_like(x)).item() == pytest.approx(8 / (16 * 9 * 2), rel=1e-4)


def test_lattice_is_what_repeats_with_the_shuffle() -> None:
    target = images(1, side=51)
    grid = torch.zeros_like(target)
    grid[..., ::4] = 0.1
    noise = 0.1 * (images(2, side=51) - 0.5)
    assert lattice_l1(target + 0.1, target).item() == pytest.approx(0, abs=1e-6)  # brightness is no lattice
    # Three columns of four are a quarter of 0.1 below their own mean, one is three quarters above.
    assert lattice_l1(target + grid, target).item() == pytest.approx(0.1 * (3 * 0.25 + 0.75) / 4, rel=1e-3)
    assert lattice_l1(target + noise, target) < 0.4 * noise.abs().mean()


def test_artefacts_are_where_the_average_is_closer_to_the_target() -> None:
    target = torch.full((1, 3, 32, 32), 0.5)
    average = target + 0.02
    out = target.clone()
    out[..., 8:16, 8:16] += 0.3 * torch.rand(8, 8, generator=torch.Generator().manual_seed(3))
    found = artefact_map(out, average, target)
    assert found[..., 9:15, 9:15].mean() > 0
    assert found[..., 20:, 20:].abs().max() == 0
    assert artefact_map(target, average, target).abs().max() == 0


@pytest.mark.parametrize("kind", ["vanilla", "relativistic"])
def test_adversarial_losses_pull_in_opposite_directions(kind: str) -> None:
    real, fooled, caught = torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([-2.0])
    assert generator_loss(kind, fooled, real) < generator_loss(kind, caught, real)  # type: ignore[arg-type]
    assert discriminator_loss(kind, caught, real) < discriminator_loss(kind, fooled, real)  # type: ignore[arg-type]


def test_vanilla_losses_of_an_undecided_discriminator_are_ln_2() -> None:
    zero = torch.zeros(3, 1)
    assert generator_loss("vanilla", zero, zero).item() == pytest.approx(math.log(2), rel=1e-6)
    assert discriminator_loss("vanilla", zero, zero).item() == pytest.approx(math.log(2), rel=1e-6)


def test_feature_matching_is_relative_to_the_size_of_the_activations() -> None:
    real = [images(1), 100 * images(2)]
    assert feature_matching(real, real) == 0
    fake = [1.1 * tap for tap in real]
    assert feature_matching(fake, real).item() == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("name", ["vgg", "unet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_adversary_learns_to_tell_fake_from_real(name: str, channels: int) -> None:
    torch.manual_seed(0)
    adversary = Adversary(name, "vanilla", 16, 1e-3, torch.device("cpu"), bf16=False)  # type: ignore[arg-type]
    real = images(1, channels)
    fake = torch.full_like(real, 0.5)
    first = adversary.learn(fake, real, 1.0).item()
    assert any(adversary.learn(fake, real, 1.0).item() < 0.7 * first for _ in range(49))
    out = fake.clone().requires_grad_(True)
    before = [p.clone() for p in adversary.net.parameters()]
    adversarial, matching = adversary.losses_of(out, real)
    (adversarial + matching).backward()
    assert out.grad is not None and out.grad.abs().max() > 0
    assert all(p.grad is None or p.requires_grad for p in adversary.net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, adversary.net.parameters(), strict=True))


def test_an_objective_gives_each_term_its_weight() -> None:
    torch.manual_seed(0)
    adversary = Adversary("vgg", "vanilla", 16, 1e-3, torch.device("cpu"), bf16=False)
    out, target, average = images(1), images(2), images(3)
    adversary.net.eval()
    rng = np.random.default_rng(0)
    once = Objective(None, adversary)(dict.fromkeys(TERMS, 1.0), out, target, average, rng)
    twice = Objective(None, adversary)(dict.fromkeys(TERMS, 2.0), out, target, average, rng)
    assert once.keys() == set(TERMS)
    for name in TERMS:
        assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-5)
    # Without a feature network, the discriminator's features stand in.
    assert once["perceptual"].item() == once["feature_matching"].item()


def test_chroma_l1_sees_colour_and_not_brightness() -> None:
    image = images(1)
    assert chroma_l1(image + 0.1, image).item() == pytest.approx(0, abs=1e-6)
    redder = image.clone()
    redder[:, 0] += 0.1
    # R'-Y' rises by 0.1 less the red share of luma, and B'-Y' falls by that share.
    assert chroma_l1(redder, image).item() == pytest.approx((0.0701 + 0.0299) / 2, rel=1e-4)


def test_an_objective_that_judges_luma_only_teaches_nothing_about_colour() -> None:
    torch.manual_seed(0)
    adversary = Adversary("vgg", "vanilla", 16, 1e-3, torch.device("cpu"), bf16=False)
    adversary.net.eval()
    out, target = images(1).requires_grad_(True), images(2)
    objective = Objective(None, adversary, judges_luma_only=True)
    terms = objective({"adversarial": 1.0, "perceptual": 1.0}, out, target, None, np.random.default_rng(0))
    torch.stack(list(terms.values())).sum().backward()
    assert out.grad is not None and out.grad.abs().max() > 0
    # The gradient lies along luma: the same at each pixel, but for the channels' shares.
    shares = torch.tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    torch.testing.assert_close(out.grad / shares, (out.grad.sum(1, keepdim=True)).expand_as(out.grad))
