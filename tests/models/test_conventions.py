"""The values that foreign networks take and give, found out by a smooth image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.errors import ModelError, OptionError
from vsr.models.conventions import USUAL, AdaptedNet, Convention, Stated, Values, find_convention
from vsr.models.nets import SRVGG
from vsr.models.weights import load_with_card
from vsr.pipeline.loading import load_card_and_net

Net = Callable[[Tensor], Tensor]


def bicubic(x: Tensor) -> Tensor:
    """A network for values from 0 to 1, of 8 bits, as networks for bytes see them: other values suit it badly."""
    return F.interpolate(x.clamp(0, 1).mul(255).round().div(255), scale_factor=2, mode="bicubic")


def for_values(convention: Convention) -> Net:
    return lambda x: convention.gives.from_unit(bicubic(convention.takes.to_unit(x)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "convention",
    [
        Convention(Values("0..255"), Values("0..255")),
        Convention(Values("-1..1"), Values("-1..1")),
        Convention(Values("0..1"), Values("-1..1")),
        Convention(Values("0..1"), Values("0..255")),
        Convention(Values("-0.5..0.5"), Values("-0.5..0.5")),
    ],
    ids=str,
)
def test_ranges_are_found_and_named(convention: Convention, channels: int) -> None:
    net = for_values(convention)
    found, why = find_convention(net, channels, 2, Stated(), "net.pth")
    x = torch.rand(1, channels, 8, 9)
    torch.testing.assert_close(found.gives.to_unit(net(found.takes.from_unit(x))), bicubic(x), rtol=0, atol=0.02)
    if convention.takes.range in ("0..255", "0..1"):  # with the others, values from 0 to 1 are right as well
        assert found == convention and str(convention) in why and "dB against bicubic" in why


@pytest.mark.parametrize("order", [("rgb", "bgr"), ("bgr", "rgb")])
@pytest.mark.parametrize("range_", ["0..1", "0..255"])
def test_mixed_orders_of_channels_are_found(order: tuple[str, str], range_: str) -> None:
    convention = Convention(Values(range_, order[0]), Values(range_, order[1]))  # type: ignore[arg-type]
    assert find_convention(for_values(convention), 3, 2, Stated(), "net.pth")[0] in (
        convention,
        Convention(Values(range_, order[1]), Values(range_, order[0])),  # type: ignore[arg-type]
    )


def test_the_usual_convention_is_not_mentioned() -> None:
    assert find_convention(bicubic, 3, 2, Stated(), "net.pth") == (USUAL, "")


@pytest.mark.parametrize(
    ("net", "scale"),
    [(lambda x: x**2, 1), (lambda x: bicubic(x) * 0.5, 2), (lambda x: torch.rand(1, 3, 64, 64), 2), (lambda x: x, 2)],
    ids=["square", "darker", "noise", "other-size"],
)
def test_what_does_not_enlarge_is_refused_with_a_remedy(net: Net, scale: int) -> None:
    with pytest.raises(ModelError, match=r"net\.pth: does not enlarge a smooth image: .* dB.*`model_range`"):
        find_convention(net, 3, scale, Stated(), "net.pth")


def test_what_is_stated_is_taken() -> None:
    stated = Stated(value_range="0..1:-1..1", channel_order="bgr")
    found, why = find_convention(bicubic, 3, 2, stated, "net.pth")
    assert found == Convention(Values("0..1", "bgr"), Values("-1..1", "bgr")) and "as stated" in why


@pytest.mark.parametrize(
    ("values", "named"), [(("0..2", None), "model_range"), ((None, "rbg"), "model_order"), ((None, None, 40), "scale")]
)
def test_unknown_statements_are_refused(values: tuple[object, ...], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        Stated(*values)  # type: ignore[arg-type]


def test_a_displaced_output_is_named() -> None:
    _, why = find_convention(lambda x: bicubic(x).roll((3, -2), (2, 3)), 3, 2, Stated(), "net.pth")
    assert "displaced by -2 pixels to the right and +3 down" in why


class _OfBytes(nn.Module):
    """A network for 0 to 255 around another."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.scale, self.halo = net, 2, 3

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x / 255) * 255
        return out


def test_an_adapted_network_takes_and_gives_values_from_0_to_1() -> None:
    net = SRVGG(features=4, depth=1, scale=2).eval()
    adapted = AdaptedNet(_OfBytes(net), Convention(Values("0..255"), Values("0..255")))
    x = torch.rand(2, 3, 12, 10)
    torch.testing.assert_close(adapted(x), net(x), rtol=0, atol=1e-5)


def _save_bytes_net(path: Path) -> Path:
    """A compact network in the layout of Real-ESRGAN that works on 0 to 255: it clamps there, by its activation."""
    net = SRVGG(features=4, depth=0, scale=2)
    state = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    state["body.2.bias"] -= 100.0  # which shifts the values: right only around 100 of 255
    state["body.0.bias"] += 1.0
    torch.save({"params": state}, path)
    return path


def test_a_checkpoint_that_is_wrong_by_every_convention_is_refused_and_can_be_stated(tmp_path: Path) -> None:
    path = _save_bytes_net(tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"net\.pth: does not enlarge"):
        load_card_and_net(str(path))
    card, _ = load_card_and_net(str(path), Stated("0..1"))
    assert "as stated" in card.assumptions


def test_scale_of_weights_that_serve_several_is_asked_for_or_named(data_folder: Path) -> None:
    path = str(data_folder / "faults" / "models" / "srcnn_best.pth")
    card, net = load_with_card(path, Stated(scale=3))
    assert (card.scale, net.scale, card.assumptions) == (3, 3, "×3 as asked")
    card, _ = load_with_card(path)
    assert card.scale == 4 and "×4 assumed" in card.assumptions and "`model_scale`" in card.assumptions


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused_at_once(data_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"huge_half\.pth: is damaged or hostile: 'conv1\.weight' claims 151 GiB"):
        load_with_card(str(data_folder / "faults" / "models" / "huge_half.pth"))


def test_a_network_for_drawings_is_taken_as_it_is(data_file: Callable[[str], Path]) -> None:
    card, _ = load_card_and_net(str(data_file("peers/realesr-animevideov3.pth")))
    assert (card.scale, card.assumptions) == (4, "")
