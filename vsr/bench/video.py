"""Compare two existing files: videos by the time of their frames, folders of images by their order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import torch

from vsr.bench.datasets import decoded_images, images_in
from vsr.bench.meter import Meter, lpips_from
from vsr.bench.results import Report, Row, Strip
from vsr.bench.strips import crop_of, telling_corner
from vsr.errors import InputError, OptionError
from vsr.events import OnNote, Progress
from vsr.media.read.reader import VideoReader
from vsr.quality.frames import LUMA, Decoded, Image, Luma, as_measured, decoded_video
from vsr.quality.metrics import pooled_psnr_db
from vsr.quality.provenance import describe_run

__all__ = ["Pair", "compare_files", "paired_frames"]

OnProgress = Callable[[Progress], None]


def compare_files(
    reference: Path,
    distorted: Path,
    *,
    crop: int = 0,
    skip: int = 0,
    lpips: Path | None = None,
    on_progress: OnProgress = lambda progress: None,
    note: OnNote = lambda line: None,
) -> Report:
    """Measure every frame of `distorted` against that of `reference`: two videos, or two folders of images.

    Args:
        crop, skip: pixels at each edge, and frames at both ends, that are left out.
        lpips: file of weights for LPIPS; not measured unless given.
        note: called with one line for each irregularity of a file.

    Raises InputError where a frame has no counterpart, or another size.
    """
    begun = time.perf_counter()
    expected = _num_expected(reference)
    meter = Meter(is_moving=True, lpips=lpips_from(lpips) if lpips else None)
    name = distorted.name
    rows: list[Row] = []
    strips: list[Strip] = []
    luma: Luma = "native"
    for pair in paired_frames(reference, distorted, crop=crop, skip=skip, note=note):
        found = meter.measure(f"{reference}, frame {pair.name}", pair.truth, [(name, pair.output)])
        rows.append(Row(reference.name, pair.name, pair.index, name, found[name]))
        luma = pair.luma
        if pair.index == (expected or 0) // 2:
            strips.append(_strip(rows[-1], pair))
        on_progress(Progress(pair.index + 1, expected, time.perf_counter() - begun))
    if not rows:
        raise InputError(f"{reference}: no frame is left without the first and last {skip}")
    return Report(
        title=f"{name} against {reference.name}",
        dataset=reference.name,
        is_moving=True,
        protocol={"crop": crop, "frames_left_out_at_each_end": skip, "luma": LUMA[luma]},
        models={name: {"kind": "file", "description": str(distorted)}},
        rows=tuple(rows),
        strips=tuple(strips),
        published=(),
        published_set="",
        gates_db={},
        provenance=describe_run(),
        seconds=time.perf_counter() - begun,
        pooled_psnr_db={name: pooled_psnr_db([row.values["luma_psnr_db"] for row in rows])},
    )


def _strip(row: Row, pair: Pair) -> Strip:
    truth, output = (image.rgb[0].add(0.5).clamp(0, 255).to(torch.uint8) for image in (pair.truth, pair.output))
    corner = telling_corner(row.clip, truth, output)
    label = f"{row.model}  {row.values['luma_psnr_db']:.2f} dB"
    return Strip(row.clip, row.frame, ((label, crop_of(output, corner)), ("reference", crop_of(truth, corner))))


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Hold a frame of both files.

    Args:
        index: its place, from 0.
        name: of the truth's frame.
        luma: the kind of luma that is compared.
    """

    index: int
    name: str
    truth: Image
    output: Image
    luma: Luma


def paired_frames(
    reference: Path, distorted: Path, *, crop: int = 0, skip: int = 0, note: OnNote = lambda line: None
) -> Iterator[Pair]:
    """Yield pairs of frames as `compare_files` measures them; raises the same errors."""
    for index, (truth, output) in _without_ends(_pairs(reference, distorted, note), skip):
        (height, width), (other_height, other_width) = (frame.rgb.shape[-2:] for frame in (truth, output))
        if (width, height) != (other_width, other_height):
            raise InputError(
                f"{distorted}: frame {output.name} is {other_width}x{other_height}, not {width}x{height} "
                "as the reference"
            )
        first, second, luma = as_measured(truth, output)
        yield Pair(index, truth.name, first.without_edge(crop), second.without_edge(crop), luma)


# -- which frame belongs to which ----------------------------------------------------------------------------------


def _pairs(reference: Path, distorted: Path, note: OnNote) -> Iterator[tuple[Decoded, Decoded]]:
    if reference.is_dir() != distorted.is_dir():
        raise OptionError(f"{reference} and {distorted}: compare two videos, or two folders of images")
    if not reference.is_dir():
        return _by_time(reference, distorted, note)
    first, second = (images_in(folder) for folder in (reference, distorted))
    for folder, paths in ((reference, first), (distorted, second)):
        if not paths:
            raise InputError(f"{folder}: holds no images")
    if len(first) != len(second):
        raise InputError(f"{distorted}: has {len(second)} images, and {reference} has {len(first)}")
    return zip(decoded_images(first), decoded_images(second), strict=True)


def _by_time(reference: Path, distorted: Path, note: OnNote) -> Iterator[tuple[Decoded, Decoded]]:
    """Pair frames of the same presentation time, up to the rounding of the two clocks."""
    videos = (decoded_video(path, note) for path in (reference, distorted))
    for count, (truth, output) in enumerate(zip_longest(*videos)):
        if truth is None or output is None:
            longer = reference if output is None else distorted
            shorter = distorted if output is None else reference
            raise InputError(f"{shorter}: has {count} frames, and {longer} has more")
        if not truth.is_at_the_time_of(output):
            raise InputError(
                f"{distorted}: its frame {count + 1} is at {output.name} s, "
                f"and that of {reference} at {truth.name} s: a frame is missing or the start is another"
            )
        yield truth, output


def _without_ends(
    frames: Iterator[tuple[Decoded, Decoded]], skip: int
) -> Iterator[tuple[int, tuple[Decoded, Decoded]]]:
    """Number frames and leave out the first and last `skip`; as many are kept waiting."""
    waiting: deque[tuple[int, tuple[Decoded, Decoded]]] = deque()
    for numbered in islice(enumerate(frames), skip, None):
        waiting.append(numbered)
        if len(waiting) > skip:
            yield waiting.popleft()


def _num_expected(reference: Path) -> int | None:
    if reference.is_dir():
        return len(images_in(reference))
    with VideoReader(reference) as reader:
        return reader.info.num_frames_from_header
