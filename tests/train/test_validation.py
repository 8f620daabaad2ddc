from __future__ import annotations

from pathlib import Path

import pytest

from vsr.media.images import find_images
from vsr.models.cards import shipped_cards
from vsr.models.weights import resolve
from vsr.pipeline.loading import load_model
from vsr.quality.protocols import (
    StillsBenchmark,
    clip_protocol,
    luma_psnr_db,
    measure_clip,
    upscale_frames_with,
)

STILLS = sorted(name for name, card in shipped_cards().items() if not card.recurrent)
CLIPS = sorted(name for name, card in shipped_cards().items() if card.recurrent)
OF_CLEAN_VIDEO = [name for name in CLIPS if "real" not in name and name != "video-bd"]


@pytest.mark.slow
@pytest.mark.parametrize("name", STILLS)
def test_card_says_what_the_network_scores_on_set5(name: str, data_folder: Path) -> None:
    card, _ = resolve(name)
    score = StillsBenchmark(data_folder / "test", card.scale, ("Set5",)).score(
        load_model(name, device="cpu", precision="fp32")
    )
    assert score["Set5"] == pytest.approx(card.figures["Set5"], abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", STILLS)
def test_auto_precision_costs_next_to_nothing(name: str, data_folder: Path) -> None:
    card, _ = resolve(name)
    score = StillsBenchmark(data_folder / "test", card.scale, ("Set5",)).score(load_model(name))
    assert score["Set5"] == pytest.approx(card.figures["Set5"], abs=0.02)


@pytest.mark.parametrize(("scale", "gate"), [(4, "Set5 28.43  Set14 26.09"), (2, "Set5 33.68  Set14 30.33")])
def test_bicubic_gate_of_the_stills(scale: int, gate: str, data_folder: Path) -> None:
    assert StillsBenchmark(data_folder / "test", scale).bicubic_gate() == gate


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_CLEAN_VIDEO)
def test_networks_that_see_time_beat_those_that_do_not(name: str, data_folder: Path) -> None:
    """By half a decibel on the first frames of a clip of Vid4, the climb from a start included."""
    paths = find_images(data_folder / "test" / "Vid4" / "city")[:10]
    measured = {
        model: measure_clip(
            paths,
            clip_protocol(4, "bi"),
            upscale_frames_with(load_model(model, device="cpu")),
            {"psnr": luma_psnr_db},
        )["psnr"]
        for model in (name, "fast")
    }
    assert measured[name] > measured["fast"] + 0.5
