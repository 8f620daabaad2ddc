"""Training for int8: it starts from a trained network, keeps its scales, and leaves other runs alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vsr.models.quantization import QuantizedConv2d
from vsr.models.weights import load_net, read_card, resolve
from vsr.train.loop import train
from vsr.train.recipes import RECIPES
from vsr.train.run import Budget, identity

TINY = replace(RECIPES["nano-int8"], patch=8, batch=2)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images, smooth as photographs are."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for index in range(2):
        image = cv2.resize(rng.integers(0, 256, (9, 8, 3), np.uint8), (80, 90), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def _scales(path: Path) -> list[float]:
    net = load_net(read_card(path), path)
    return [float(layer.input_scale) for layer in net.modules() if isinstance(layer, QuantizedConv2d)]


def test_a_run_goes_on_from_the_model_and_keeps_its_scales(images: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = train(TINY, images, tmp_path / "run", Budget(steps=1), bf16=False, log=lines.append)
    assert lines[0].startswith("starts from nano")
    before = _scales(first)
    assert len(before) == 4 and all(0 < scale < 0.5 for scale in before)
    second = train(TINY, images, tmp_path / "run", Budget(steps=3), resume=True, bf16=False, log=lines.append)
    assert _scales(second) == before
    card = read_card(second)
    assert card.quantized and card.net == "luma"
    trained, start = load_net(card, second), load_net(*resolve("nano"))
    assert not torch.equal(trained.get_parameter("body.2.weight"), start.get_parameter("body.2.weight"))
    x = torch.full((1, 1, 12, 12), 0.4)
    torch.testing.assert_close(trained(x), start(x), rtol=0, atol=0.02)


def test_runs_of_other_recipes_begun_before_int8_go_on() -> None:
    assert "quantized" not in identity(RECIPES["fast"]) and "quantized" in identity(RECIPES["fast-int8"])
