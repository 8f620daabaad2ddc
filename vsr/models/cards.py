"""Read model cards and find the shipped ones by name."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from vsr.errors import ModelError

__all__ = ["CARD_KEY", "SHIPPED", "ModelCard", "card_from_json", "find_card", "shipped_cards"]

SHIPPED = Path(__file__).parent / "shipped"
MOST_INT8_LOSS_DB = 0.03  # that "auto" takes int8 for, on Set5 and on BSD100, or on Vid4
CARD_KEY = "vsr_card"  # of a safetensors file's metadata


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Describe one model: its network, weights, needs and measured figures.

    Args:
        name: the name by which users choose it.
        net: key of `nets.NETS`.
        options: keyword arguments of the network's constructor.
        scale: output pixels per input pixel in each direction.
        color: "rgb" networks take and give (N, 3, H, W); "y" networks luma alone, (N, 1, H, W); "yuv" networks are
            recurrent, with the tensors of `nets.recurrent`.
        halo: distance in input pixels within which an output pixel depends on the input; tiles overlap by as much.
        multiple_of: input sides must be multiples of it; the pipeline pads to them.
        window: number of input frames that one output frame is computed from.
        recurrent: True where a state goes from frame to frame.
        restart_interval: frames of the source after which a recurrent network's state is made anew.
        warm_up: frames before a restart from which the new state is computed.
        run_in: frames after the first of a scene through which a recurrent network runs backwards before that one.
        both_flows: True where the motion to the frame after is estimated like that to the frame before. Else it is
            the same, inverted: a little less exact, in half the time.
        weights: file name beside the card.
        sha256: checksum of that file.
        int8_weights: file name of the weights for int8, "" for none.
        int8_sha256: checksum of that file.
        quantized: True where the weights belong to the network as `quantization.quantized` makes it.
        figures: luma PSNR in dB by dataset, by the protocols of docs/models.md; "Set5 int8" is that of the int8
            weights.
        assumptions: values that an import took for granted or found by a test, "" for none.
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
    run_in: int = 0
    both_flows: bool = False
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
    assumptions: str = ""

    @property
    def is_int8_proven(self) -> bool:
        """Tell whether the int8 weights were measured to lose so little that nobody need ask for them."""
        names = ("Vid4 BI",) if self.recurrent else ("Set5", "BSD100")
        if not self.int8_weights or any(
            name not in self.figures or f"{name} int8" not in self.figures for name in names
        ):
            return False
        return all(self.figures[name] - self.figures[f"{name} int8"] <= MOST_INT8_LOSS_DB for name in names)

    @property
    def num_seen_after(self) -> int:
        """Frames after a frame that it may depend on."""
        return max(1, self.run_in) if self.recurrent else 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def card_from_json(text: str, origin: str) -> ModelCard:
    """Read a model card from JSON text.

    Args:
        text: the JSON object; unknown keys are passed over.
        origin: file name for the message.

    Raises ModelError where the text is not a card.
    """
    try:
        values = json.loads(text)
        known = {f.name for f in fields(ModelCard)}
        return ModelCard(**{key: value for key, value in values.items() if key in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{origin}: not a model card ({error})") from error


@functools.cache
def shipped_cards() -> dict[str, ModelCard]:
    """Read the cards that come with the package; return them by name."""
    cards = [card_from_json(path.read_text("utf-8"), path.name) for path in sorted(SHIPPED.glob("*.json"))]
    return {card.name: card for card in cards}


def find_card(name: str) -> ModelCard:
    """Return the shipped card of that name. Raises ModelError, which lists the names, for any other."""
    cards = shipped_cards()
    if name not in cards:
        raise ModelError(f"unknown model '{name}'; there are {', '.join(cards)}, or give a weights file")
    return cards[name]
