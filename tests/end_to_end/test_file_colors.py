"""Colours of files that say little of them: video without tags, palettes, transparency by a palette."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vsr

DataFile = Callable[[str], Path]


@pytest.fixture
def enhance(tiny_model: Path) -> Callable[..., list[str]]:
    def call(source: Path, target: Path, **options: Any) -> list[str]:
        notes: list[str] = []
        model = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu"}
        vsr.enhance(source, target, **model, note=lambda note: notes.append(str(note)), **options)
        return notes

    return call


def _colors(path: Path) -> list[tuple[int, ...]]:
    """The RGBA colours of the first frame, in ascending order."""
    with av.open(str(path)) as container:
        pixels = next(container.decode(video=0)).reformat(format="rgba", threads=1).to_ndarray().reshape(-1, 4)
    return [tuple(map(int, color)) for color in np.unique(pixels, axis=0)]


def test_wide_video_without_tags_is_bt709_whatever_its_height(
    data_file: DataFile, enhance: Callable[..., list[str]], tmp_path: Path
) -> None:
    notes = enhance(data_file("faults/wide709.mkv"), tmp_path / "out.mkv")  # 1280x544
    assert any("read as BT709" in note for note in notes)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert next(container.decode(video=0)).colorspace == 1


@pytest.mark.parametrize(("name", "options"), [("out.gif", {}), ("out.avi", {"codec": "huffyuv"})])
def test_an_animation_keeps_its_colors(
    name: str, options: dict[str, str], data_file: DataFile, enhance: Callable[..., list[str]], tmp_path: Path
) -> None:
    source = data_file("faults/red.gif")
    enhance(source, tmp_path / name, **options)
    assert _colors(tmp_path / name) == _colors(source) == [(216, 0, 0, 255), (252, 0, 0, 255)]


@pytest.mark.parametrize(("name", "options"), [("out.mkv", {"codec": "ffv1"}), ("out_%03d.png", {}), ("out.gif", {})])
def test_a_palette_keeps_what_is_transparent(
    name: str, options: dict[str, str], data_file: DataFile, enhance: Callable[..., list[str]], tmp_path: Path
) -> None:
    for number in (1, 2):
        shutil.copy(data_file("faults/pal_001.png"), tmp_path / f"in_{number:03}.png")
    notes = enhance(tmp_path / "in_%03d.png", tmp_path / name, **options)
    assert any("pal8 is read as rgba" in note for note in notes)
    colors = _colors(tmp_path / name.replace("%03d", "001"))
    assert (255, 0, 0, 255) in colors
    assert [color[3] for color in colors if color != (255, 0, 0, 255)] == [0]


def test_transparency_that_the_encoder_lacks_is_named(
    data_file: DataFile, enhance: Callable[..., list[str]], tmp_path: Path
) -> None:
    for number in (1, 2):
        shutil.copy(data_file("faults/pal_001.png"), tmp_path / f"in_{number:03}.png")
    assert "alpha is left out: libx264 has none" in enhance(tmp_path / "in_%03d.png", tmp_path / "out.mp4")


def _write_gif(path: Path, clear: tuple[int, ...]) -> None:
    """Write five frames, some of which are transparent in their middle."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10, options={"gifflags": "-offsetting-transdiff"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "pal8"
        palette = np.zeros((256, 4), np.uint8)
        palette[:5] = [[40 * index, 100, 200 - 30 * index, 255] for index in range(5)]
        palette[6:] = 1, 2, 3, 255
        for number in range(5):
            frame = av.VideoFrame(32, 24, "pal8")
            pixels = np.full((24, frame.planes[0].line_size), number, np.uint8)
            pixels[8:16, 8:16] = 5 if number in clear else number
            frame.planes[0].update(pixels.tobytes())
            frame.planes[1].update(palette.tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("clear", "is_opaque"), [((), True), ((0, 1, 2, 3, 4), False), ((2, 3), False)], ids=str)
def test_a_gif_has_alpha_where_one_of_its_frames_is_transparent(
    clear: tuple[int, ...], is_opaque: bool, enhance: Callable[..., list[str]], tmp_path: Path
) -> None:
    _write_gif(tmp_path / "in.gif", clear)
    with av.open(str(tmp_path / "in.gif")) as container:
        alpha = [int(frame.to_ndarray(format="rgba")[..., 3].min()) for frame in container.decode(video=0)]
    assert (min(alpha) == 255) == is_opaque
    notes = enhance(tmp_path / "in.gif", tmp_path / "out.mp4", strict=is_opaque)  # nothing is lost of an opaque one
    assert ("alpha is left out: libx264 has none" in notes) == (not is_opaque)
    lost = [difference.text for difference in vsr.verify(tmp_path / "in.gif", tmp_path / "out.mp4").differences]
    assert ("alpha is missing" in lost) == (not is_opaque)
