"""What the table of formats says of containers and encoders holds in jobs; a row that is added is known everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from command_line import Run

from vsr.media import formats
from vsr.media.formats import Container, Encoder


@pytest.fixture
def clip(tmp_path: Path, make_clip: Callable[..., Path], Track: Any) -> Path:
    """Frames of samples that are not square, with a title and a German audio track."""

    def stretch(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    audio, metadata = [Track(metadata={"language": "deu"})], {"title": "a title"}
    return make_clip(tmp_path / "in.mp4", audio=audio, metadata=metadata, prepare=stretch)


def test_a_new_encoder(run: Run, tmp_path: Path, clip: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [clip, tmp_path / "out.mkv", "--model", tiny_model, "-c:v", "libvpx"]
    before = run("enhance", *words, "--dry-run").out
    assert "libvpx (crf=" not in before and "left out: the sample aspect ratio 4/3" in before
    assert "libvpx," not in run("doctor").out

    row = Encoder("libvpx", quality={"crf": "9"}, quality_options=frozenset({"crf"}), holds_aspect=True)
    monkeypatch.setitem(formats.ENCODERS, row.name, row)
    planned = run("enhance", *words, "--dry-run").out
    assert "matroska, libvpx (crf=9)" in planned and "sample aspect ratio" not in planned
    assert re.search(r"^encoders: .*\blibvpx$", run("doctor").out, re.MULTILINE)
    ended = run("enhance", *words)
    assert ended.code == 0 and "aspect" not in ended.err
    with av.open(str(tmp_path / "out.mkv")) as output:
        assert output.streams.video[0].codec_context.codec.canonical_name == "vp8"


def test_a_new_container(
    run: Run, tmp_path: Path, clip: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [clip, tmp_path / "out.tv", "--model", tiny_model, "--format", "tv"]
    assert "writes no such format" in run("enhance", *words, "--dry-run").err

    row = Container(
        "nut",
        aliases=("tv",),
        encoder="mpeg4",
        holds_negative_times=False,
        holds_reordered_frames=False,
        holds_metadata=False,
        holds_languages=False,
    )
    monkeypatch.setitem(formats.CONTAINERS, row.name, row)
    planned = run("enhance", *words, "--dry-run").out
    assert "nut, mpeg4" in planned
    lost = ["metadata (title) is left out: nut", "its language is left out: nut"]
    assert all(any(line.startswith("left out: ") and text in line for line in planned.splitlines()) for text in lost)
    ended = run("enhance", *words)
    assert ended.code == 0 and all(text in ended.err for text in lost)
    with av.open(str(tmp_path / "out.tv")) as output:
        assert output.format.name == "nut" and output.streams.video[0].codec_context.name == "mpeg4"
    assert run("enhance", *words, "-y", "--strict").code == 8


@pytest.mark.parametrize(
    ("suffix", "source"),
    [
        (".flv", {"audio": True}),  # AAC begins before time zero, by the priming of its encoder
        (".m4v", {"codec": "ffv1", "pix_fmt": "yuv420p10le", "size": (64, 64), "options": {}}),  # no place for HEVC
    ],
)
def test_the_usual_encoder_fits_the_container(
    run: Run, tmp_path: Path, make_clip: Callable[..., Path], Track: Any, tiny_model: Path, suffix: str, source: Any
) -> None:
    audio = [Track()] if source.pop("audio", False) else []
    clip, output = make_clip(tmp_path / "in.mkv", audio=audio, **source), tmp_path / f"out{suffix}"
    assert run("enhance", clip, output, "--model", tiny_model).code == 0
    with av.open(str(output)) as written:
        assert [stream.codec_context.name for stream in written.streams] == ["h264", *("aac" for _ in audio)]
