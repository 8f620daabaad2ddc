"""The report of a job, also as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vsr.errors import OptionError, OutputError
from vsr.files import check_target, naming_output, write_file
from vsr.jobs.options import OutputPolicy
from vsr.media.endpoints import File, Source, Target, parse_source
from vsr.quality.provenance import describe_run
from vsr.quality.reference import FrameQuality

__all__ = ["JobReport", "RetriedSegment", "check_report", "reported", "write_job_report"]


def check_report(policy: OutputPolicy, source: Source, target: Target) -> None:
    """Refuse, before any work, a report that cannot or must not be written, and a target that is the reference."""
    reference, report = policy.reference, policy.report
    if report is not None:
        check_target(report, policy.overwrite, source.path)
        if report.absolute() == target.path.absolute():
            raise OptionError(f'`report="{report}"`: is the output\'s name; give another')
    if reference is None:
        return
    if _is_image(parse_source(reference)) != _is_image(source):
        raise OptionError(f'`reference="{reference}"`: compare a video with a video, or a picture with a picture')
    for path in (target.path, report):
        if path is not None and path.exists() and reference.exists() and path.samefile(reference):
            raise OutputError(f"{path}: is the reference; give another name")


def _is_image(end: Source) -> bool:
    return isinstance(end, File) and end.is_image


def write_job_report(path: Path, source: Path, summary: Mapping[str, object], quality: FrameQuality | None) -> None:
    """Write the report of a finished job, whole or not at all."""
    report = {
        "report": "vsr enhance",
        **describe_run(),
        "input": str(source),
        **summary,
        "quality": None if quality is None else quality.as_json(),
    }
    with naming_output(path):
        write_file(path, json.dumps(report, indent=1, allow_nan=False) + "\n")


@dataclass(frozen=True, slots=True)
class RetriedSegment:
    """A segment of a job on several workers that had to be made again.

    number: of the segment, from 1.  worker: that failed, as "host:process".  reason: in a line.
    """

    number: int
    worker: str
    reason: str

    def __str__(self) -> str:
        return f"segment {self.number} ({self.worker}: {self.reason})"


@dataclass(frozen=True, slots=True)
class JobReport:
    """The result of a finished job.

    stage_seconds: busy time of each stage; they overlap, so their sum can exceed `seconds`.
    reused_share: the part of all frames' pixels, 0 to 1, that the network did not compute anew; None where
        reuse is off.
    mean_psnr_db: the mean over the frames of their luma PSNR against the reference; None where there is none.
    num_frames_before: of num_frames, those that an earlier run of the same job has done.
    retried: attempts at segments that failed in this run, in their order.
    """

    output: Path
    model: str
    engine: str
    num_frames: int
    width: int
    height: int
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)
    reused_share: float | None = None
    mean_psnr_db: float | None = None
    num_frames_before: int = 0
    retried: tuple[RetriedSegment, ...] = ()

    def summary(self) -> dict[str, object]:
        """Give it as JSON has it: the last line of `vsr enhance --progress json`, and the head of a report."""
        return {
            "output": str(self.output),
            "model": self.model,
            "engine": self.engine,
            "frames": self.num_frames,
            "frames_before": self.num_frames_before,
            "width": self.width,
            "height": self.height,
            "seconds": round(self.seconds, 3),
            "stage_seconds": {name: round(seconds, 3) for name, seconds in self.stage_seconds.items()},
            "reused_share": None if self.reused_share is None else round(self.reused_share, 4),
            "retried_segments": [
                {"segment": each.number, "worker": each.worker, "reason": each.reason} for each in self.retried
            ],
        }


def reported(report: JobReport, quality: FrameQuality | None, source: Source, path: Path | None) -> JobReport:
    """Put the measured quality into a report, and write it to a file, if one is asked for."""
    if quality is not None:
        report = replace(report, mean_psnr_db=quality.mean_psnr_db)
    if path is not None:
        write_job_report(path, source.path, report.summary(), quality)
    return report
