"""Hold the results of a quality benchmark, and compute their means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from vsr.bench.meter import METRICS
from vsr.bench.published import Published

__all__ = ["Means", "Report", "Row", "Strip", "clip_means", "overall_means"]

Means = dict[str, dict[str, float]]  # model to metric to value


@dataclass(frozen=True, slots=True)
class Row:
    """Hold the measures of one frame by one model.

    Args:
        index: the frame's place in its clip, from 0.
        values: by `Metric.key`.
    """

    clip: str
    frame: str
    index: int
    model: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Hold labels and crops (h, w, 3) uint8 RGB of one frame, the truth last."""

    clip: str
    frame: str
    columns: tuple[tuple[str, np.ndarray], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Hold all results of a benchmark.

    Args:
        models: facts by name, in the order of the tables.
        gates_db: figures on record with which bicubic was compared.
        published, published_set: figures of papers, and their set.
        pooled_psnr_db: by model, the PSNR of the mean squared error, where two files were compared.
    """

    title: str
    dataset: str
    is_moving: bool
    protocol: Mapping[str, object]
    models: Mapping[str, Mapping[str, object]]
    rows: tuple[Row, ...]
    strips: tuple[Strip, ...]
    published: tuple[Published, ...]
    published_set: str
    gates_db: Mapping[str, float]
    provenance: Mapping[str, object]
    seconds: float
    pooled_psnr_db: Mapping[str, float] = field(default_factory=dict)

    @property
    def clips(self) -> list[str]:
        return list(dict.fromkeys(row.clip for row in self.rows))


def clip_means(rows: Iterable[Row]) -> dict[str, Means]:
    """Compute, by clip, the mean of each measure over the frames that have it."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        by_metric = values.setdefault(row.clip, {}).setdefault(row.model, {})
        for metric in METRICS:
            if metric.key in row.values:
                by_metric.setdefault(metric.key, []).append(row.values[metric.key])
    return {
        clip: {model: {key: fmean(each) for key, each in found.items()} for model, found in models.items()}
        for clip, models in values.items()
    }


def overall_means(rows: Iterable[Row]) -> Means:
    """Compute the mean of the clips' means, as papers give Vid4; clips without a measure do not count in it."""
    values: dict[str, dict[str, list[float]]] = {}
    for models in clip_means(rows).values():
        for model, found in models.items():
            for key, mean in found.items():
                values.setdefault(model, {}).setdefault(key, []).append(mean)
    return {model: {key: fmean(each) for key, each in found.items()} for model, found in values.items()}
