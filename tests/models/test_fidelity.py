from __future__ import annotations

import pytest
import torch

from vsr.errors import OptionError
from vsr.models.fidelity import load_interpolated
from vsr.models.weights import load_net, resolve


@pytest.mark.parametrize(("fidelity", "name"), [(0.0, "srgan"), (1.0, "srresnet")])
def test_the_ends_are_the_two_models(fidelity: float, name: str) -> None:
    _, net = load_interpolated(fidelity)
    wanted = load_net(*resolve(name)).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in net.state_dict().items())


def test_half_way_lies_between_them() -> None:
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    sharp, between, faithful = (load_interpolated(f)[1](x) for f in (0.0, 0.5, 1.0))
    whole = (sharp - faithful).abs().mean()
    assert 0 < (between - faithful).abs().mean() < whole
    assert 0 < (between - sharp).abs().mean() < whole


def test_the_card_says_what_it_is() -> None:
    card, _ = load_interpolated(0.25)
    assert "fidelity 0.25" in card.name and not card.figures and card.scale == 4


@pytest.mark.parametrize("fidelity", [-0.1, 1.5])
def test_outside_of_0_to_1_is_an_error(fidelity: float) -> None:
    with pytest.raises(OptionError, match="between 0"):
        load_interpolated(fidelity)
