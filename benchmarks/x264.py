"""Measure presets of x264 on large upscaled frames: time, size, and fidelity to the network's output.

    python benchmarks/x264.py [--clip FILE]... [--model fast] [--frames 16]

Frames of each clip are upscaled once. In turn each preset encodes them at several values of CRF by the job's own
encoder, settings and threads. Written down are CPU seconds, bits per pixel, and the mean PSNR of luma against the
frames that went in. The curve of PSNR over bits of each preset then tells what it needs at the fidelity that "medium"
has at CRF 18: the CRF, and bits and time over those of "medium". Medians over clips.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

import av
import click
import numpy as np
from machine import describe_run

from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.media.formats import ENCODERS
from vsr.media.write.encoder import encoder_threads

HERE = Path(__file__).parent
PRESETS = ("medium", "fast", "faster", "veryfast", "superfast")
DEFAULT_CRF = 18
CRFS = (14, 18, 22)


def upscaled(clip: Path, model: str, num_frames: int, folder: Path) -> list[av.VideoFrame]:
    """Upscale the first frames of a clip, losslessly kept."""
    target = folder / f"{clip.stem}.mkv"
    enhance_file(clip, target, JobOptions.of(model=model, codec="ffv1", duration_seconds=Fraction(num_frames, 20)))
    with av.open(str(target)) as container:
        frames = [frame for frame, _ in zip(container.decode(video=0), range(num_frames), strict=False)]
    for frame in frames:
        frame.pict_type = 0  # the encoder decides, as in a job
    return frames


def encoded(frames: list[av.VideoFrame], preset: str, crf: int) -> tuple[float, list[av.Packet], Any]:
    """Encode frames; return CPU seconds, packets and the codec's extra data."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
    context.time_base, context.framerate = frames[0].time_base, 30
    context.thread_count = encoder_threads("libx264")
    context.options = {**ENCODERS["libx264"].parameters, "crf": str(crf), "preset": preset}
    begun = time.process_time()
    packets = [packet for frame in [*frames, None] for packet in context.encode(frame)]
    return time.process_time() - begun, packets, context.extradata


def luma_psnr_db(frames: list[av.VideoFrame], packets: list[av.Packet], extradata: Any) -> float:
    """Decode packets; return the mean luma PSNR against the frames that were encoded, in dB."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = extradata
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    figures = []
    for a, b in zip(frames, decoded, strict=True):
        difference = luma(a) - luma(b)
        figures.append(10 * np.log10(255**2 / float(np.mean(difference**2))))
    return float(np.mean(figures))


def luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return pixels[: frame.height, : frame.width].astype(np.float32)


def measured(frames: list[av.VideoFrame]) -> dict[str, list[dict[str, float]]]:
    """Encode frames by every preset and CRF; return the points of each preset's curve."""
    curves: dict[str, list[dict[str, float]]] = {preset: [] for preset in PRESETS}
    num_pixels = sum(frame.width * frame.height for frame in frames)
    for crf in CRFS:
        for preset, points in curves.items():
            seconds, packets, extradata = encoded(frames, preset, crf)
            points.append(
                {
                    "crf": crf,
                    "cpu_seconds_per_megapixel": round(seconds * 1e6 / num_pixels, 4),
                    "bits_per_pixel": round(8 * sum(packet.size for packet in packets) / num_pixels, 4),
                    "psnr_db": round(luma_psnr_db(frames, packets, extradata), 3),
                }
            )
    return curves


def at_fidelity(points: list[dict[str, float]], psnr_db: float) -> dict[str, float]:
    """Interpolate a curve at a PSNR, by its two nearest points: CRF, bits per pixel, CPU seconds."""
    first, second = sorted(
        sorted(points, key=lambda point: abs(point["psnr_db"] - psnr_db))[:2], key=lambda p: p["crf"]
    )
    share = (psnr_db - first["psnr_db"]) / (second["psnr_db"] - first["psnr_db"])
    found = {"crf": first["crf"] + share * (second["crf"] - first["crf"])}
    for name in ("bits_per_pixel", "cpu_seconds_per_megapixel"):
        found[name] = first[name] * (second[name] / first[name]) ** share
    return found


def over_medium(curves: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return what each preset needs for the fidelity of "medium" at the default CRF, over what "medium" needs."""
    psnr_db = next(point["psnr_db"] for point in curves["medium"] if point["crf"] == DEFAULT_CRF)
    found = {preset: at_fidelity(points, psnr_db) for preset, points in curves.items()}
    medium = found["medium"]
    return {
        preset: {
            "crf": round(each["crf"], 2),
            "bits": round(each["bits_per_pixel"] / medium["bits_per_pixel"], 3),
            "cpu": round(each["cpu_seconds_per_megapixel"] / medium["cpu_seconds_per_megapixel"], 3),
        }
        for preset, each in found.items()
    }


@click.command()
@click.option("--clip", "clips", type=click.Path(path_type=Path), multiple=True, help="May be repeated.")
@click.option("--model", default="fast")
@click.option("--frames", "num_frames", default=16)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "x264.json")
def main(clips: tuple[Path, ...], model: str, num_frames: int, out: Path) -> None:
    """Measure, print and write the result."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips or (HERE.parent / "samples" / "sample.mp4",):
            frames = upscaled(clip, model, num_frames, Path(folder))
            curves = measured(frames)
            size = f"{frames[0].width}x{frames[0].height}"
            results[clip.name] = {"size": size, "over_medium": over_medium(curves), "curves": curves}
            click.echo(f"{clip.name} {size}: {results[clip.name]['over_medium']}")
    medians = {
        preset: {
            name: round(statistics.median(each["over_medium"][preset][name] for each in results.values()), 3)
            for name in ("crf", "bits", "cpu")
        }
        for preset in PRESETS
    }
    values = {**describe_run(), "model": model, "frames": num_frames, "over_medium": medians, "clips": results}
    out.write_text(json.dumps(values, indent=2) + "\n")
    click.echo(json.dumps(medians, indent=2))


if __name__ == "__main__":
    main()
