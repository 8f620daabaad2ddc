"""Write the folder of a quality benchmark: a page to look at, and its figures as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vsr.bench.meter import METRICS, Metric
from vsr.bench.page import Images, page
from vsr.bench.plots import check_plots, plot_psnr
from vsr.bench.results import Means, Report, Row, clip_means, overall_means
from vsr.bench.strips import png, strip
from vsr.errors import OutputError
from vsr.files import naming_output, partial_folder

__all__ = ["prepare_folder", "table", "write_report"]

_JSON = "results.json"
_KIND = "vsr quality benchmark"
_DIGITS = 6  # kept in files: far below what a figure means, far above what another machine changes


def prepare_folder(out: Path, overwrite: bool) -> None:
    """Check, before anything is measured, that a report can be written; nothing is made yet.

    Raises OutputError where it cannot or must not be written, and MissingExtraError where the plotting library is
    missing.
    """
    check_plots()
    out = out.absolute()
    if not out.parent.is_dir():
        raise OutputError(f"{out}: the folder {out.parent} does not exist; make it first")
    if not os.access(out.parent, os.W_OK):
        raise OutputError(f"{out}: no permission to write into {out.parent}")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        if not _is_report(out):
            raise OutputError(f"{out}: holds something else than a benchmark; name another folder")
        if not overwrite:
            raise OutputError(f"{out}: exists; `overwrite=True` replaces it")


def write_report(report: Report, out: Path, *, overwrite: bool = False) -> None:
    """Write frames.csv, results.json, index.html, and by clip a plot and strips as PNG: all of them or nothing."""
    prepare_folder(out, overwrite)
    out = out.absolute()  # "." has no name
    with naming_output(out), partial_folder(out) as partial:
        images = _write_images(report, partial)
        (partial / "frames.csv").write_text(_csv(report), "utf-8")
        (partial / _JSON).write_text(_json(report), "utf-8")
        (partial / "index.html").write_text(page(report, images), "utf-8")


def _is_report(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _JSON).read_text("utf-8"))["benchmark"] == _KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


# -- images --------------------------------------------------------------------------------------------------


def _write_images(report: Report, folder: Path) -> dict[str, Images]:
    """Write plots and strips by clip; the plots of the page also on a dark ground."""
    images = {}
    for clip in report.clips:
        curves = {
            model: [row.values["luma_psnr_db"] for row in report.rows if (row.clip, row.model) == (clip, model)]
            for model in report.models
        }
        frames = "frame" if report.is_moving else "image"
        title = report.title if len(report.clips) == 1 else f"{report.title}: {clip}"
        restarts = _restarts(report, max(map(len, curves.values())))
        plots = [plot_psnr(title, frames, curves, restarts=restarts, is_dark=dark) for dark in (False, True)]
        strips = [png(strip(shown.columns)) for shown in report.strips if shown.clip == clip]
        (folder / f"psnr_{_file_name(clip)}.png").write_bytes(plots[0])
        for index, data in enumerate(strips):
            number = f"_{index + 1}" if len(strips) > 1 else ""
            (folder / f"strip_{_file_name(clip)}{number}.png").write_bytes(data)
        images[clip] = Images(plots[0], plots[1], tuple(strips))
    return images


def _restarts(report: Report, num_frames: int) -> list[int]:
    """List the frames of a clip at which a network with memory begins anew, after the first frame."""
    intervals = {facts.get("restart_interval", 0) for facts in report.models.values()}
    return sorted({n for step in intervals if isinstance(step, int) and step for n in range(step, num_frames, step)})


def _file_name(clip: str) -> str:
    return re.sub(r"[^\w.-]", "_", clip)


# -- figures ---------------------------------------------------------------------------------------------------


def _csv(report: Report) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [metric.key for metric in METRICS]
    writer.writerow(["clip", "frame", "model", *keys])
    for row in report.rows:
        values = [_number(row.values[key]) if key in row.values else "" for key in keys]
        writer.writerow([row.clip, row.frame, row.model, *values])
    return text.getvalue()


def _json(report: Report) -> str:
    content = {
        "benchmark": _KIND,
        "title": report.title,
        "dataset": report.dataset,
        "protocol": report.protocol,
        "metrics": {metric.key: {"better": metric.better, "meaning": metric.meaning} for metric in METRICS},
        "overall": _rounded_means(overall_means(report.rows)),
        "clips": {clip: _rounded_means(means) for clip, means in clip_means(report.rows).items()},
        "pooled_psnr_db": {model: _number(value) for model, value in report.pooled_psnr_db.items()},
        "bicubic_gates_db": report.gates_db,
        "models": report.models,
        "published": [asdict(paper) for paper in report.published],
        "frames": [_frame(row) for row in report.rows],
        **report.provenance,
        "seconds": round(report.seconds, 1),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _frame(row: Row) -> dict[str, Any]:
    values = {key: _number(value) for key, value in row.values.items()}
    return {"clip": row.clip, "frame": row.frame, "model": row.model, **values}


def _rounded_means(means: Means) -> dict[str, dict[str, float | str]]:
    return {model: {key: _number(value) for key, value in found.items()} for model, found in means.items()}


def _number(value: float) -> float | str:
    """Format a PSNR for JSON, which has no infinity, the PSNR of equal images."""
    return round(value, _DIGITS) if math.isfinite(value) else str(value)


def table(report: Report) -> str:
    """Format the overall means for a terminal: a line per model, and the published figures marked."""
    means = overall_means(report.rows)
    shown = [metric for metric in METRICS if any(metric.key in found for found in means.values())]
    labels = {**{model: model for model in means}, **{p.name: f"{p.name} (published)" for p in report.published}}
    width = max(map(len, [report.title, *labels.values()])) + 2
    lines = [f"{report.title:<{width}}" + "".join(f"{metric.label:>{_column_width(metric)}}" for metric in shown)]
    for model, found in means.items():
        lines.append(_line(model, width, found, shown))
    for paper in report.published:
        known = (("luma_psnr_db", paper.psnr_db), ("ssim", paper.ssim))
        values = {key: figures[report.published_set] for key, figures in known if report.published_set in figures}
        lines.append(_line(labels[paper.name], width, values, shown))
    return "\n".join(lines)


def _line(label: str, width: int, values: Mapping[str, float], shown: list[Metric]) -> str:
    cells = []
    for metric in shown:
        text = f"{values[metric.key]:.{metric.digits}f}" if metric.key in values else "-"
        cells.append(f"{text:>{_column_width(metric)}}")
    return f"{label:<{width}}" + "".join(cells)


def _column_width(metric: Metric) -> int:
    return max(len(metric.label), 6) + 2
