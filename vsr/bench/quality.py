"""Measure quality on sets of images and clips: reduce every frame, upscale it by all contenders, and compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import tee
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsr.bench.contenders import BICUBIC, Contender, contenders
from vsr.bench.datasets import Clip, Dataset, find_dataset, num_frames, truths
from vsr.bench.meter import Lpips, Meter, lpips_from
from vsr.bench.published import published_on
from vsr.bench.results import Report, Row, Strip, clip_means, overall_means
from vsr.bench.strips import crop_of, telling_corner
from vsr.color.resample import mod_crop
from vsr.errors import InputError, ModelError, OptionError
from vsr.events import OnNote, Progress
from vsr.quality.frames import Image
from vsr.quality.protocols import Degradation, Protocol, check_gate, clip_protocol, stills_protocol
from vsr.quality.provenance import describe_run

__all__ = ["measure_quality"]

_NUM_STILLS_SHOWN = 4

OnProgress = Callable[[Progress], None]


def measure_quality(
    dataset: str,
    models: tuple[str, ...],
    *,
    data: Path | None = None,
    opencv: tuple[Path, ...] = (),
    degradation: Degradation = "bi",
    scale: int | None = None,
    lpips: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    on_progress: OnProgress = lambda progress: None,
    note: OnNote = lambda line: None,
) -> Report:
    """Measure models and the baselines on a set (`find_dataset`), by the protocol of stills or of Vid4.

    Bicubic upscaling is always measured; where its figures are on record and differ, the run stops with OptionError as
    soon as that is known. Raises InputError for missing or unfit images, and the errors of `load_model`.
    """
    begun = time.perf_counter()
    chosen = find_dataset(dataset, data)
    if degradation == "bd" and not chosen.is_moving:
        raise OptionError(f"{chosen.name} is a set of stills, which are measured under bi: bd is a protocol of clips")
    compared, scale = contenders(
        models, opencv, scale=scale, device=device, precision=precision, backend=backend, note=note
    )
    _check_fit(compared, chosen)
    protocol = clip_protocol(scale, degradation) if chosen.is_moving else stills_protocol(scale)
    run = _Run(chosen, protocol, compared, lpips_from(lpips) if lpips else None, on_progress, note)
    rows, strips = run.measure()
    suffix = f" {degradation.upper()}" if chosen.is_moving else ""
    return Report(
        title=f"{chosen.name}{suffix} ×{scale}",
        dataset=chosen.name,
        is_moving=chosen.is_moving,
        protocol={**asdict(protocol), "low_resolution": _LOW[degradation], "luma": "BT.601, 16 to 235, unrounded"},
        models={contender.name: contender.facts() for contender in compared},
        rows=tuple(rows),
        strips=tuple(strips),
        published=tuple(published_on(chosen.name + suffix, scale)) if chosen.is_known else (),
        published_set=chosen.name + suffix,
        gates_db=run.gates_db,
        provenance=describe_run(),
        seconds=time.perf_counter() - begun,
    )


def _check_fit(compared: list[Contender], dataset: Dataset) -> None:
    """Refuse networks with memory on stills."""
    for contender in compared:
        if contender.restart_interval and not dataset.is_moving:
            raise OptionError(
                f"`model={contender.name}` needs the frames of a video, and {dataset.name} is a set of stills; "
                "measure it on vid4 or on a folder of clips"
            )


_LOW = {
    "bi": "MATLAB's imresize, bicubic with antialiasing, 8 bit",
    "bd": "13x13 Gaussian of sigma 0.4 x scale, then every scale-th pixel from the first on, 8 bit",
}


class _Run:
    """Walk through a set once. Figures and a few crops are kept, frames are not."""

    def __init__(
        self,
        dataset: Dataset,
        protocol: Protocol,
        compared: list[Contender],
        lpips: Lpips | None,
        on_progress: OnProgress,
        note: OnNote,
    ) -> None:
        self.dataset, self.protocol, self.compared = dataset, protocol, compared
        self.lpips, self.on_progress, self.note = lpips, on_progress, note
        self.gates_db: dict[str, float] = {}
        self._counts = [num_frames(clip) for clip in dataset.clips]
        self._num_done, self._begun = 0, time.perf_counter()

    def measure(self) -> tuple[list[Row], list[Strip]]:
        rows: list[Row] = []
        strips: list[Strip] = []
        for clip, count in zip(self.dataset.clips, self._counts, strict=True):
            for frame_rows, strip in self._clip(clip, count):
                rows += frame_rows
                if strip is not None:
                    strips.append(strip)
            self._gate_of_clip(clip, rows)
        if self.dataset.is_known and self.dataset.is_moving:
            self._gate(self.dataset.name, overall_means(rows)[BICUBIC]["luma_psnr_db"])
        return rows, strips

    def _clip(self, clip: Clip, count: int | None) -> Iterator[tuple[list[Row], Strip | None]]:
        meter = Meter(self.dataset.is_moving, self.lpips)
        shown = self._shown(count)
        index = -1
        for index, (name, truth, images) in enumerate(self._upscaled(clip)):
            values = meter.measure(
                f"{clip.name}/{name}",
                self._counted(truth),
                ((model, self._counted(image)) for model, image in images.items()),
            )
            rows = [Row(clip.name, name, index, model, found) for model, found in values.items()]
            yield rows, _strip(clip, name, truth, images, rows) if index in shown else None
            self._advance()
        if index < 0:
            raise InputError(
                f"{clip.paths[0]}: has no frames" if clip.is_video else f"{clip.name}: no image can be read"
            )

    def _shown(self, count: int | None) -> set[int]:
        """Choose the frames of which a strip is made: the middle one of a clip, some of a set of stills."""
        if self.dataset.is_moving or not count:
            return {(count or 0) // 2}
        return {round(position * (count - 1) / (_NUM_STILLS_SHOWN - 1)) for position in range(_NUM_STILLS_SHOWN)}

    def _upscaled(self, clip: Clip) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        """Yield name, truth and all contenders' images of every frame of a clip.

        Every contender walks along the clip by itself: one that looks ahead is a frame further than the others.
        """
        frames, *copies = tee(self._reduced(clip), 1 + len(self.compared))
        walks = [
            contender.upscale_frames(low for _, _, low in copy)
            for contender, copy in zip(self.compared, copies, strict=True)
        ]
        for (name, truth, _), *images in zip(frames, *walks, strict=True):
            for contender, image in zip(self.compared, images, strict=True):
                if image.shape != truth.shape or image.dtype is not torch.uint8:
                    raise ModelError(f"{contender.name}: gives {tuple(image.shape)} where {tuple(truth.shape)} is due")
            yield name, truth, {each.name: image for each, image in zip(self.compared, images, strict=True)}

    def _reduced(self, clip: Clip) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield name, truth and low resolution of every frame of a clip."""
        # Of a user's folder of stills the others can be measured; a clip without one of its frames is another clip.
        skips = not (self.dataset.is_known or self.dataset.is_moving)
        for name, image in truths(clip, self.note, skips_damaged=skips):
            truth = mod_crop(image, self.protocol.scale)
            if min(truth.shape[-2:]) == 0:
                raise InputError(f"{clip.name}/{name}: is smaller than one pixel at 1/{self.protocol.scale}")
            yield name, truth, self.protocol.reduce(truth)

    def _counted(self, image: Tensor) -> Image:
        return Image.from_rgb(image).without_edge(self.protocol.crop)

    def _gate_of_clip(self, clip: Clip, rows: list[Row]) -> None:
        if self.dataset.is_known:
            name = f"{self.dataset.name}/{clip.name}" if self.dataset.is_moving else self.dataset.name
            self._gate(name, clip_means(rows)[clip.name][BICUBIC]["luma_psnr_db"])

    def _gate(self, name: str, mean_db: float) -> None:
        gate_db = check_gate(name, mean_db, self.protocol)
        if gate_db is not None:
            self.gates_db[name] = gate_db

    def _advance(self) -> None:
        self._num_done += 1
        expected = None if None in self._counts else sum(count or 0 for count in self._counts)
        self.on_progress(Progress(self._num_done, expected, time.perf_counter() - self._begun))


def _strip(clip: Clip, frame: str, truth: Tensor, images: dict[str, Tensor], rows: list[Row]) -> Strip:
    corner = telling_corner(clip.name, truth, images[BICUBIC])
    columns: list[tuple[str, np.ndarray]] = []
    for row in rows:
        columns.append((f"{row.model}  {row.values['luma_psnr_db']:.2f} dB", crop_of(images[row.model], corner)))
    return Strip(clip.name, frame, (*columns, ("ground truth", crop_of(truth, corner))))
