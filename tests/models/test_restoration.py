"""Weights between the clean and the real form of a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vsr.errors import OptionError
from vsr.jobs.options import JobOptions
from vsr.jobs.purposes import PURPOSES, describe_purpose, options_for
from vsr.models.restoration import REAL_FORMS, clean_form, load_restored
from vsr.models.weights import load_net, resolve


@pytest.mark.parametrize("clean", REAL_FORMS)
def test_the_ends_are_the_two_forms_and_the_middle_lies_between(clean: str) -> None:
    forms = [load_net(*resolve(name)).state_dict() for name in (clean, REAL_FORMS[clean])]
    for restore, form in zip((0.0, 1.0), forms, strict=True):
        card, net = load_restored(clean, restore)
        assert all(torch.equal(value, form[key]) for key, value in net.state_dict().items())
    card, net = load_restored(REAL_FORMS[clean], 0.5)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, (forms[0][key] + forms[1][key]) / 2)
    assert card.name == f"{clean} at restore 0.5" and not card.figures and not card.sha256


def test_half_way_the_network_still_enlarges() -> None:
    """Weights interpolate because the real form was trained from the clean one."""
    x = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6), (48, 48), mode="bicubic").clamp(0, 1)
    outs = [load_restored("fast", restore)[1](x) for restore in (0.0, 0.5, 1.0)]
    assert (outs[1] - (outs[0] + outs[2]) / 2).abs().mean() < 0.02


def test_other_models_have_one_form() -> None:
    assert clean_form("vdsr") is None and clean_form("fast-real") == "fast"
    with pytest.raises(OptionError, match="'vdsr' has no real form; fast, video-fast, video have"):
        load_restored("vdsr", 0.5)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_word_stands_for_options_that_a_job_takes(purpose: str) -> None:
    chosen = options_for(purpose, {})
    JobOptions.of(**chosen)
    text = describe_purpose(purpose, chosen)
    assert text.startswith(f"{purpose} stands for `") and all(name in text for name in chosen)


def test_what_is_given_wins_over_a_word() -> None:
    given: dict[str, Any] = {"model": "auto", "scale": 3.0, "restore": 0.25, "deinterlace": "on"}
    assert options_for("old-video", given) == {"model": "fast-real"}
    assert "restore" not in options_for("old-video", {"model": "srgan"})
    with pytest.raises(OptionError, match="old-video, phone"):
        options_for("film", {})
