"""Model cards: what can be run, with what weights, and how good it was measured to be."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from vsr.errors import ModelError

__all__ = ["CARD_KEY", "SHIPPED", "ModelCard", "card_from_json", "find_card", "shipped_cards"]

SHIPPED = Path(__file__).parent / "shipped"
CARD_KEY = "vsr_card"  # of a safetensors file's metadata


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model.

    net, options: a key of `nets.NETS`, and the arguments of its constructor.
    scale: output pixels per input pixel in each direction.
    color: "rgb" networks take and give (N, 3, H, W); "y" networks luma alone, (N, 1, H, W); "yuv" networks are
        recurrent, with the tensors of `nets.recurrent`.
    halo: input pixels around an output pixel that it can depend on; tiles overlap by so much.
    multiple_of: input sides the network needs, which the pipeline pads to.
    window: frames that go into one output frame.  recurrent: whether a state goes from frame to frame.
    restart_interval: frames of the source after which a recurrent network's state is made anew, from `warm_up` frames
        before.
    weights: file name beside the card, sha256 its checksum.  int8_weights, int8_sha256: those for int8, if any.
    quantized: whether the weights are for the network as `quantized.quantized` makes it.
    figures: luma PSNR in dB by dataset, by the protocols of docs/models.md; "Set5 int8" that of the int8 weights.
    """

    name: str
    net: str
    options: dict[str, Any]
    scale: int
    color: Literal["rgb", "y", "yuv"]
    halo: int
    multiple_of: int = 1
    window: int = 1
    recurrent: bool = False
    restart_interval: int = 0
    warm_up: int = 0
    weights: str = ""
    sha256: str = ""
    int8_weights: str = ""
    int8_sha256: str = ""
    quantized: bool = False
    license: str = "Apache-2.0"
    description: str = ""
    data: str = ""
    recipe: str = ""
    num_parameters: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def card_from_json(text: str, origin: str) -> ModelCard:
    """Read a card. Raises ModelError, which names `origin`, for anything that is not one."""
    try:
        values = json.loads(text)
        known = {f.name for f in fields(ModelCard)}
        return ModelCard(**{key: value for key, value in values.items() if key in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{origin}: not a model card ({error})") from error


@functools.cache
def shipped_cards() -> dict[str, ModelCard]:
    """The cards that come with the package, by name."""
    cards = [card_from_json(path.read_text("utf-8"), path.name) for path in sorted(SHIPPED.glob("*.json"))]
    return {card.name: card for card in cards}


def find_card(name: str) -> ModelCard:
    """A shipped card by name. Raises ModelError with the names there are."""
    cards = shipped_cards()
    if name not in cards:
        raise ModelError(f"unknown model '{name}'; there are {', '.join(cards)}, or give a weights file")
    return cards[name]
