from __future__ import annotations

import pytest
import torch

from vsr.models.nets.discriminators import UNetDiscriminator, VGGDiscriminator


def test_the_paper_s_discriminator() -> None:
    net = VGGDiscriminator(96)
    logits, activations = net(torch.rand(2, 3, 96, 96))
    assert logits.shape == (2, 1)
    assert [tuple(a.shape[1:]) for a in activations] == [(64, 48, 48), (128, 24, 24), (256, 12, 12), (512, 6, 6)]
    # Eight 3x3 convolutions of 64 to 512 features, and dense layers of 6·6·512 to 1024 to 1.
    widths = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    convolutions = sum(9 * a * b for a, b in widths) + 64  # only the first, without batch norm, has a bias
    norms = 2 * sum(b for _, b in widths[1:])
    dense = (6 * 6 * 512 + 1) * 1024 + 1025
    assert sum(p.numel() for p in net.parameters()) == convolutions + norms + dense


def test_a_side_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        VGGDiscriminator(90)


def test_the_u_net_judges_every_pixel() -> None:
    logits, activations = UNetDiscriminator(8)(torch.rand(1, 3, 32, 48))
    assert logits.shape == (1, 1, 32, 48)
    assert [a.shape[1] for a in activations] == [16, 32, 64]


def test_spectral_norm_bounds_the_u_net_s_inner_convolutions() -> None:
    torch.manual_seed(0)
    net = UNetDiscriminator(4)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "original" in name:
                parameter.mul_(50)
    for _ in range(30):  # the norm is found by power iteration, one turn for each call
        net(torch.rand(1, 3, 16, 16))
    for module in [*net.down, *net.up]:
        weight = module.weight.detach().flatten(1)
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, rel=0.05)
