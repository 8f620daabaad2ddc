"""Measure a shipped model in int8 and, if that costs little, put weights for it beside the others.

python scripts/ship_int8.py fast --weights runs/fast-int8/weights.safetensors
python scripts/ship_int8.py srresnet --calibrate IMAGES
python scripts/ship_int8.py video-fast --calibrate CLIPS
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click

from vsr.errors import EngineError
from vsr.events import Note, NoteCode
from vsr.export.int8 import GATE_SET, calibrated, check_drop, gate_set, vid4_bi_db
from vsr.models.cards import SHIPPED, ModelCard, find_card
from vsr.models.quantization import QuantizedConv2d
from vsr.models.weights import load_net, read_card, save_model_file
from vsr.pipeline.loading import ModelOptions, upscaler_of_net
from vsr.quality.data_folder import data_folder
from vsr.quality.protocols import StillsBenchmark


@click.command()
@click.argument("name")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="What 'vsr train NAME-int8' wrote.")
@click.option(
    "--calibrate", type=click.Path(path_type=Path, exists=True), help="Folder of images, or of clips, instead."
)
def main(name: str, weights: Path | None, calibrate: Path | None) -> None:
    """Ship weights for int8 with the model NAME."""
    if (weights is None) is (calibrate is None):
        raise click.UsageError("give either --weights or --calibrate")
    card = find_card(name)
    if calibrate is not None:
        net = calibrated(card, load_net(card, SHIPPED / card.weights), calibrate)
    elif weights is not None:
        net = load_net(read_card(weights), weights)
    for layer in net.modules():
        if isinstance(layer, QuantizedConv2d):
            layer.round_weights()
    own = replace(card, weights=f"{name}.int8.safetensors", sha256="", quantized=True, figures={})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, own.weights)
        save_model_file(path, own, {key: value.half() for key, value in net.state_dict().items()})
        scored = score(own, path)
        for dataset, figure in scored.items():
            click.echo(f"{name}: {dataset} {figure} in int8, otherwise {card.figures[dataset]}")
        check_drop(card, card.figures[gate_set(card)] - scored[gate_set(card)])
        data = path.read_bytes()
    (SHIPPED / own.weights).write_bytes(data)
    card = replace(
        card,
        figures=card.figures | {f"{dataset} int8": figure for dataset, figure in scored.items()},
        int8_weights=own.weights,
        int8_sha256=hashlib.sha256(data).hexdigest(),
    )
    (SHIPPED / f"{name}.json").write_text(card.to_json(), "utf-8")


def score(card: ModelCard, path: Path) -> dict[str, float]:
    """Measure luma PSNR in dB, by OpenVINO, as users get it; by dataset, those that "auto" goes by."""
    options = ModelOptions(device="cpu", precision="int8", backend="openvino")
    upscaler = upscaler_of_net(card, load_net(card, path), options, note=_refuse_fallback)
    if card.recurrent:
        return {"Vid4 BI": round(vid4_bi_db(data_folder() / "test", upscaler), 3)}
    stills = StillsBenchmark(data_folder() / "test", card.scale, (GATE_SET, "BSD100"))
    click.echo(f"bicubic gate: {stills.bicubic_gate()}")
    return {dataset: round(figure, 3) for dataset, figure in stills.score(upscaler).items()}


def _refuse_fallback(note: Note) -> None:
    """Refuse to measure another precision than the one that the figure is for."""
    if note.code is NoteCode.FALLBACK:
        raise EngineError(str(note))


if __name__ == "__main__":
    main()
