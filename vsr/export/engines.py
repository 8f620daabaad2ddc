"""Run `vsr engine`: build engines ahead of a job, measure, list them, remove those of no more use."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from vsr.backends.cuda_runner import CudaRunner
from vsr.backends.engine import TooLargeError, choose_device, choose_precision, image_signature
from vsr.backends.engine_store import EngineEntry, EngineStore, Target
from vsr.backends.select import EngineMaker, Place
from vsr.backends.tensorrt_builder import Shape, load_tensorrt
from vsr.backends.tensorrt_engine import TensorRTEngine, make_tensorrt_engine
from vsr.errors import EngineError, MissingExtraError, OptionError, OutputError, reason
from vsr.events import Note, NoteCode
from vsr.jobs.plan import choose_batch
from vsr.models.cards import ModelCard, shipped_cards
from vsr.models.conventions import Stated
from vsr.models.weights import load_int8_net, load_with_card
from vsr.pipeline.first_batch import frames_that_fit, free_bytes, peak_bytes
from vsr.pipeline.loading import load_card_and_net, signature_of

__all__ = ["build_engine", "describe_engines", "prepare", "prune_engines", "tune_models"]


def build_engine(
    model: str,
    size: str,
    *,
    batch: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    stated: Stated | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Build the TensorRT engine that a job on frames of `size` will load.

    Args:
        model: name or file of the model.
        size: "WIDTHxHEIGHT" of the input in pixels.
        batch: frames per batch; None for a job's own choice.
        precision: as of a job.
        device: as of a job.
        stated: what is known of a file of another project, as of a job.
        note: called with a line for each engine, and with what an import assumed.

    Raises MissingExtraError without TensorRT, EngineError where it cannot be used, ModelError and OptionError.
    """
    width, height = _sides(size)
    card, net = load_with_card(model, stated)
    if card.recurrent:
        raise OptionError(f"`model={card.name}`: the job builds the engines of networks that see time")
    if card.assumptions:
        note(Note(NoteCode.MODEL, f"{card.name}: {card.assumptions}"))
    if precision == "int8" and not card.quantized:
        net = load_int8_net(card)
    load_tensorrt()
    chosen = choose_device(device)
    engine = make_tensorrt_engine(
        net,
        image_signature(1 if card.color == "y" else 3),
        precision=choose_precision(chosen, precision),
        device=chosen,
        note=note,
        label=card.name,
    )
    frames = choose_batch(batch, width, height, chosen, _fitting(card, net, (width, height), engine))
    sides = [side + -side % card.multiple_of for side in (height, width)]
    try:
        frames = prepare(
            engine, (frames, 1 if card.color == "y" else 3, sides[0], sides[1]), is_asked=batch is not None
        )
    except torch.OutOfMemoryError as error:
        raise EngineError(f"out of memory on {chosen} for {frames} frames of {width}x{height}; give `batch`") from error
    note(Note(NoteCode.ENGINE, f"{engine.name}: ready for {width}x{height}, batch {frames}"))


def _fitting(card: ModelCard, net: nn.Module, size: tuple[int, int], engine: TensorRTEngine) -> int | None:
    """Return how many frames of (width, height) pixels fit in a GPU's free memory; see `frames_that_fit`."""
    if engine.device.type != "cuda":
        return None
    width, height = size
    peak = peak_bytes(net, signature_of(card), height, width, engine.precision)
    return frames_that_fit(free_bytes(engine.device), peak, card.scale**2 * width * height, is_recurrent=False)


def prepare(engine: TensorRTEngine, shape: Shape, *, is_asked: bool) -> int:
    """Build the engine of a shape, (N, C, H, W), or of the most frames that TensorRT takes, as a job does; return N.

    is_asked: whether the batch was asked for. Raises EngineError where TensorRT does not take it.
    """
    try:
        engine.prepare(shape)
    except TooLargeError as error:
        if is_asked or not error.num_frames:
            remedy = "give a smaller `batch`" if error.num_frames else "a job runs it in tiles"
            raise EngineError(f"{error}; {remedy}") from error
        engine.prepare((error.num_frames, *shape[1:]))
        return error.num_frames
    return shape[0]


def _sides(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)[x×:]([1-9]\d*)", size)
    if match is None:
        raise OptionError(f"`size={size}`: give the input's WIDTHxHEIGHT")
    return int(match[1]), int(match[2])


def tune_models(models: Sequence[str], *, note: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """Measure anew which backend and precision run models fastest on this CPU; yield a line for each.

    Args:
        models: names or files; all shipped ones where there are none.
        note: called with a line where a candidate does not run.

    Raises ModelError.
    """
    for model in models or list(shipped_cards()):
        card, net = load_card_and_net(model)
        if not isinstance(net, nn.Module) or card.quantized:
            yield f"{card.name}: runs as it is, so that there is nothing to choose"
            continue
        maker = EngineMaker(
            net,
            signature_of(card),
            Place(torch.device("cpu"), "auto"),
            label=card.name,
            work=math.inf,
            note=note,
            load_quantized=functools.partial(load_int8_net, card),
        )
        maker.is_int8_proven = card.is_int8_proven
        yield f"{card.name}: {maker.measure().describe()}"


def describe_engines() -> str:
    """List the folder, and a line for each engine in it."""
    store = EngineStore()
    entries = store.entries()
    if not entries:
        return f"{store.folder}: no engines"
    return "\n".join([f"{store.folder}:", *(_line(entry) for entry in entries)])


def _line(entry: EngineEntry) -> str:
    size = f"{entry.num_bytes / 2**20:.1f} MiB"
    if entry.key is None:
        return f"{entry.path.name}  {size}  {entry.problem}"
    batch, _, height, width = entry.key.shape
    target = entry.key.target
    text = (
        f"{entry.path.name}  {entry.label}, {width}x{height}, batch {batch}, {entry.key.precision}, "
        f"TensorRT {target.tensorrt}, {target.gpu} ({target.compute_capability}), {size}, {entry.built}"
    )
    return f"{text}  {entry.problem}" if entry.problem else text


def prune_engines(*, everything: bool = False) -> str:
    """Remove damaged engines and those of another TensorRT or GPU, or all; list them in a line. Raises OutputError."""
    store = EngineStore()
    here = None if everything else _targets_here()

    def is_wanted(target: Target) -> bool:
        return not everything and (here is None or target in here)

    try:
        removed = store.prune(is_wanted) if store.folder.is_dir() else []
    except OSError as error:
        raise OutputError(f"{store.folder}: cannot be cleaned up ({reason(error)})") from error
    lines = [f"removed {path.name}" for path in removed] or ["nothing to remove"]
    if here is None and not everything:
        lines.append("no TensorRT or GPU to compare with: only damaged files were looked for")
    return "\n".join(lines)


def _targets_here() -> set[Target] | None:
    """Return the targets whose engines run on this machine, or None where that cannot be known."""
    try:
        version = str(load_tensorrt().__version__)
    except (MissingExtraError, EngineError):
        return None
    gpus = [CudaRunner(torch.device("cuda", index)).gpu for index in range(torch.cuda.device_count())]
    return {Target(version, gpu.name, gpu.compute_capability) for gpu in gpus} or None
