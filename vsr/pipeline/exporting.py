"""What `vsr export` does: a model as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from vsr.backends.engine import PRECISIONS, Precision
from vsr.backends.export import export_onnx
from vsr.errors import OptionError, OutputError
from vsr.models.weights import load_net, resolve

__all__ = ["export_model"]


def export_model(
    model: str,
    output: Path,
    *,
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    overwrite: bool = False,
) -> str:
    """Write a model as ONNX, input "x" and output "y", float32 (N, C, H, W); returns what was written, in a line.

    size: (width, height) in pixels and, with it, batch (1 unless given) for fixed sizes; else all are open.
    Raises ModelError, OptionError, OutputError, MissingExtraError, and EngineError where it cannot be exported.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"--precision {precision}: there are {', '.join(PRECISIONS)}")
    if batch is not None and size is None:
        raise OptionError("--batch: is fixed together with the size; add --size")
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: exists already; -y replaces it")
    card, path = resolve(model)
    if size is not None and any(side % card.multiple_of for side in size):
        raise OptionError(f"--size: '{card.name}' takes sides that are multiples of {card.multiple_of}")
    channels = 1 if card.color == "y" else 3
    shape = None if size is None else (batch or 1, size[1], size[0])
    data = export_onnx(load_net(card, path), channels=channels, shape=shape, precision=precision)
    partial = output.with_name(output.name + ".part")
    try:
        partial.write_bytes(data)
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error
    sizes = "any size" if shape is None else f"{shape[0]} frames of {shape[2]}x{shape[1]}"
    return f"{output}: {card.name}, {precision}, {channels} channels, {sizes}, {len(data) / 2**20:.1f} MiB"
