from __future__ import annotations

from pathlib import Path

import pytest

from vsr.models.cards import shipped_cards
from vsr.models.weights import resolve
from vsr.pipeline.loading import load_model
from vsr.quality.protocols import StillsBenchmark


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped_cards()))
def test_card_says_what_the_network_scores_on_set5(name: str, data_folder: Path) -> None:
    card, _ = resolve(name)
    score = StillsBenchmark(data_folder / "test", card.scale, ("Set5",)).score(
        load_model(name, device="cpu", precision="fp32")
    )
    assert score["Set5"] == pytest.approx(card.figures["Set5"], abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped_cards()))
def test_auto_precision_costs_next_to_nothing(name: str, data_folder: Path) -> None:
    card, _ = resolve(name)
    score = StillsBenchmark(data_folder / "test", card.scale, ("Set5",)).score(load_model(name))
    assert score["Set5"] == pytest.approx(card.figures["Set5"], abs=0.02)


@pytest.mark.parametrize(("scale", "gate"), [(4, "Set5 28.43  Set14 26.09"), (2, "Set5 33.68  Set14 30.33")])
def test_bicubic_gate_of_the_stills(scale: int, gate: str, data_folder: Path) -> None:
    assert StillsBenchmark(data_folder / "test", scale).bicubic_gate() == gate
