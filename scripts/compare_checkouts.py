"""Run two checkouts of vsr on the same files, and compare what comes out: decoded frames, packets, exit codes.

python scripts/compare_checkouts.py ../before . samples "$VSR_DATA/clips"

Each checkout needs an environment of its own in .venv (scripts/install). Frames are compared by the checksum of their
decoded planes, packets of other streams by that of their bytes, both with their times.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import click


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold the result of a run: the exit code, and a checksum for each stream of the output, by index and kind."""

    exit_code: int
    streams: dict[str, str]


def outcome(checkout: Path, source: Path, options: tuple[str, ...]) -> Outcome:
    """Enhance a file with the program of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.mkv"
        program = checkout.resolve() / ".venv" / "bin" / "vsr"
        command = [program, "enhance", source.resolve(), output, *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        return Outcome(done.returncode, dict(_checksums(output)) if output.is_file() else {})


def _checksums(path: Path) -> Iterator[tuple[str, str]]:
    """Give a checksum of each stream: of decoded frames for video, of packets for the others."""
    with av.open(str(path)) as file:
        hashes = {stream.index: hashlib.sha256() for stream in file.streams}
        for packet in file.demux():
            digest = hashes[packet.stream.index]
            if packet.stream.type != "video":
                digest.update(f"{packet.pts} {packet.duration}".encode() + bytes(packet))
                continue
            for frame in packet.decode():
                digest.update(f"{frame.pts} {frame.format.name}".encode())
                for plane in frame.planes:
                    digest.update(bytes(plane))
        for stream in file.streams:
            yield f"{stream.index} {stream.type}", hashes[stream.index].hexdigest()


def _files(places: tuple[Path, ...]) -> Iterator[Path]:
    for place in places:
        yield from sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]


@click.command()
@click.argument("before", type=click.Path(path_type=Path, exists=True))
@click.argument("after", type=click.Path(path_type=Path, exists=True))
@click.argument("places", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--model", default="nano", show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="Of each file.")
def main(before: Path, after: Path, places: tuple[Path, ...], model: str, seconds: float) -> None:
    """Compare the checkouts BEFORE and AFTER on files, and on all files of folders (PLACES)."""
    # FFV1 gives each frame back as the network made it, where an encoder could hide a difference.
    options = (
        "--model",
        model,
        "-t",
        str(seconds),
        "-c:v",
        "ffv1",
        "--precision",
        "fp32",
        "--backend",
        "pytorch",
        "-y",
    )
    num_files = num_different = 0
    for path in _files(places):
        old, new = (outcome(checkout, path, options) for checkout in (before, after))
        num_files += 1
        if old != new:
            num_different += 1
            keys = sorted(
                key for key in old.streams.keys() | new.streams if old.streams.get(key) != new.streams.get(key)
            )
            click.echo(
                f"{path.name}: exit codes {old.exit_code} and {new.exit_code}; different: {', '.join(keys) or '–'}"
            )
    click.echo(f"{num_files} files, {num_different} different")
    raise SystemExit(1 if num_different else 0)


if __name__ == "__main__":
    main()
