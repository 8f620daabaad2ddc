"""One rich recording into every container: what each cannot hold is transcoded or named, and refused under --strict.

What lands is read by ffprobe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import hard_clips as clips
import pytest
from ffprobe_reading import Probe, ProbedStream, needs_ffprobe, probe

import vsr
from vsr.errors import StrictError

pytestmark = needs_ffprobe

SOUNDS = (("aac", "eng"), ("ac3", "deu"), ("pcm_s16le", "fra"), ("flac", "jpn"))
TEXTS = (("subrip", "eng"), ("ass", "deu"))


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 with B-frames, four kinds of sound, two of subtitles, chapters, a font, a cover and metadata."""
    folder = tmp_path_factory.mktemp("rich")
    srt, ass, chapters, font = (folder / name for name in ("text.srt", "text.ass", "chapters.txt", "letters.ttf"))
    srt.write_text("1\n00:00:00,100 --> 00:00:00,400\nOne\n\n2\n00:00:00,500 --> 00:00:00,700\n<i>Two</i>\n")
    clips.make(ass, "-i", srt)
    chapters.write_text(
        ";FFMETADATA1\ntitle=A film\ncomment=kept\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=300\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=300\nEND=800\ntitle=Two\n"
    )
    font.write_bytes(clips.FONT)
    cover = clips.make(folder / "cover.png", *clips.pattern(size="48x48", frames=1), "-frames:v", "1")
    arguments = [*clips.pattern(), *clips.tone()]
    arguments += ["-i", srt, "-i", ass, "-i", chapters]
    arguments += ["-map", "0"] + ["-map", "1"] * len(SOUNDS) + ["-map", "2", "-map", "3", "-map_metadata", "4"]
    arguments += [*clips.X264, "-bf", "2"]
    for place, (codec, language) in enumerate(SOUNDS):
        arguments += [f"-c:a:{place}", codec, f"-metadata:s:a:{place}", f"language={language}"]
    for place, (codec, language) in enumerate(TEXTS):
        arguments += [f"-c:s:{place}", codec, f"-metadata:s:s:{place}", f"language={language}"]
    for number, (file, kind) in enumerate(((font, "application/x-truetype-font"), (cover, "image/png"))):
        arguments += ["-attach", file, f"-metadata:s:t:{number}", f"mimetype={kind}"]
    return clips.make(folder / "rich.mkv", *arguments)


@dataclass(frozen=True)
class Holding:
    """What is expected of a container.

    streams: (type, codec, language) of every stream but the picture, in ffprobe's words.
    named: words of the lines that name what is not as it was, one line each.
    metadata: whether it has any.  chapters: how many.
    """

    streams: tuple[tuple[str, str, str], ...]
    named: tuple[str, ...]
    metadata: bool = True
    chapters: int = 2


_KEPT_SOUNDS = tuple(("audio", codec, language) for codec, language in SOUNDS)
_WORDS = {
    "mp4": (("subtitle", "mov_text", "eng"), ("subtitle", "mov_text", "deu")),
    "webm": (("subtitle", "webvtt", "eng"), ("subtitle", "webvtt", "deu")),
}


def _in_quicktime(*streams: tuple[str, str, str]) -> tuple[tuple[str, str, str], ...]:
    """With the other of ISO 639-2's two codes for German, the only one that QuickTime has."""
    return tuple((kind, codec, language.replace("deu", "ger")) for kind, codec, language in streams)


_COVER = ("video", "png", "und")
_NO_FONT = "attachment stream 7 (letters.ttf): left out"
_NO_COVER = "video stream 8 (png): left out"
_NO_WORDS = ("subtitle stream 5 (srt, eng): left out", "subtitle stream 6 (ssa, deu): left out")

HOLDINGS = {
    "mkv": Holding(
        (
            *_KEPT_SOUNDS,
            ("subtitle", "subrip", "eng"),
            ("subtitle", "ass", "deu"),
            ("attachment", "ttf", "und"),
            _COVER,
        ),
        (),
    ),
    "mp4": Holding(
        (*_KEPT_SOUNDS, *_WORDS["mp4"], _COVER),
        (
            "subtitle stream 5 (srt, eng): transcoded to mov_text",
            "subtitle stream 6 (ssa, deu): transcoded to mov_text",
            _NO_FONT,
        ),
    ),
    "mov": Holding(
        _in_quicktime(*_KEPT_SOUNDS[:3], ("audio", "aac", "jpn"), *_WORDS["mp4"]),
        (
            "audio stream 4 (flac, jpn): transcoded to aac",
            "subtitle stream 5 (srt, eng): transcoded to mov_text",
            "subtitle stream 6 (ssa, deu): transcoded to mov_text",
            _NO_FONT,
            _NO_COVER,
        ),
    ),
    "webm": Holding(
        (*(("audio", "opus", language) for _, language in SOUNDS), *_WORDS["webm"]),
        (
            *(f"audio stream {number} (" for number in (1, 2, 3, 4)),
            "subtitle stream 5 (srt, eng): transcoded to webvtt",
            "subtitle stream 6 (ssa, deu): transcoded to webvtt",
            _NO_FONT,
            _NO_COVER,
        ),
    ),
    "ts": Holding(
        (*_KEPT_SOUNDS[:2], ("audio", "aac", "fra"), ("audio", "aac", "jpn")),
        (
            "audio stream 3 (pcm_s16le, fra): transcoded to aac",
            "audio stream 4 (flac, jpn): transcoded to aac",
            *_NO_WORDS,
            _NO_FONT,
            _NO_COVER,
            "metadata (",
            "2 chapters",
        ),
        metadata=False,
        chapters=0,
    ),
    "avi": Holding(
        tuple(("audio", codec, "und") for codec, _ in SOUNDS),
        (
            *(f"audio stream {number} (" for number in (1, 2, 3, 4)),
            *_NO_WORDS,
            _NO_FONT,
            _NO_COVER,
            "that it begins 0.021 s before the video is left out",
            "the start at 0.021 s is left out",
            "2 chapters",
        ),
        chapters=0,
    ),
}


@pytest.mark.parametrize("suffix", HOLDINGS)
def test_what_lands_and_what_is_named(suffix: str, rich: Path, tmp_path: Path, tiny_model: Path) -> None:
    held, target, notes = HOLDINGS[suffix], tmp_path / f"out.{suffix}", list[str]()
    vsr.enhance(rich, target, model=str(tiny_model), note=notes.append)
    source, output = probe(rich), probe(target)
    assert [(s.type, s.codec, s.language) for s in _in_order(output)] == list(held.streams)
    assert len(output.video.frames) == len(source.video.frames)
    assert [c.title for c in output.chapters] == [c.title for c in source.chapters][: held.chapters]
    assert (output.tags.get("title"), output.tags.get("comment")) == (
        ("A film", "kept") if held.metadata else (None, None)
    )
    said = [line for line in notes if any(w in line for w in ("left out", "transcoded", "chapters"))]
    assert len(said) == len(held.named), said
    for words in held.named:
        assert any(words in line for line in said), words


@pytest.mark.parametrize("suffix", HOLDINGS)
def test_what_lands_is_what_was_there(suffix: str, rich: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Frames and copied packets come at their times; sound that was transcoded lasts as long, text says the same."""
    target = tmp_path / f"out.{suffix}"
    vsr.enhance(rich, target, model=str(tiny_model))
    source, output = probe(rich), probe(target)
    start = source.times[0] if suffix == "avi" else Fraction(0)
    for want, got in zip(source.times, output.times, strict=True):
        assert want is not None and got is not None and start is not None
        assert abs(want - start - got) <= output.video.time_base / 2
    for before, after in zip(source.of_type("audio"), output.of_type("audio"), strict=True):
        if after.codec == before.codec:
            assert sum(p.size for p in after.packets) >= sum(p.size for p in before.packets) > 0
        length = [s.packet_seconds[-1] - s.packet_seconds[0] for s in (before, after)]
        assert abs(length[0] - length[1]) < Fraction(1, 10)
    for index, after in enumerate(output.of_type("subtitle")):
        words = clips.run_ffmpeg(["-i", target, "-map", f"0:s:{index}", "-f", "srt", "-"]).decode()
        assert "\nOne\n" in words and "\n<i>Two</i>\n" in words
        shown = [t for p, t in zip(after.packets, after.packet_seconds, strict=True) if p.size > 2]  # 2: nothing
        assert shown == source.of_type("subtitle")[index].packet_seconds


def _in_order(reading: Probe) -> list[ProbedStream]:
    """The other streams; without the text track in which ISO files keep chapters."""
    return [s for s in reading.others if not (s.type == "data" and s.codec == "bin_data")]


@pytest.mark.parametrize("suffix", [suffix for suffix, held in HOLDINGS.items() if held.named])
def test_under_strict_nothing_lands(suffix: str, rich: Path, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(StrictError) as caught:
        vsr.enhance(rich, tmp_path / f"out.{suffix}", model=str(tiny_model), strict=True)
    assert StrictError.exit_code == 8
    assert "attachment stream 7" in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_strict_is_content_with_what_loses_nothing(rich: Path, tmp_path: Path, tiny_model: Path) -> None:
    vsr.enhance(rich, tmp_path / "out.mkv", model=str(tiny_model), strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def _turned(path: Path) -> Path:
    return clips.turned(path, "90")


def _mirrored(path: Path) -> Path:
    return clips.turned(path, "flipped upside down")


@pytest.mark.parametrize(
    ("make", "name", "target", "options", "words"),
    [
        pytest.param(clips.hdr10, "in.mp4", "out.webm", {}, "HDR10 metadata is left out: libvpx-vp9", id="hdr-vp9"),
        pytest.param(clips.hdr10, "in.mp4", "out.mkv", {"codec": "ffv1"}, "HDR10 metadata is left out", id="hdr-ffv1"),
        pytest.param(_turned, "in.mp4", "out.avi", {}, "shown rotated by -90 degrees is left out", id="turned-avi"),
        pytest.param(_turned, "in.mp4", "out.ts", {}, "shown rotated by -90 degrees is left out", id="turned-ts"),
        pytest.param(_mirrored, "in.mp4", "out.ts", {}, "shown mirrored is left out", id="mirrored-ts"),
    ],
)
def test_what_frames_carry_and_the_output_cannot_is_named(
    make: Callable[[Path], Path],
    name: str,
    target: str,
    options: dict[str, str],
    words: str,
    tmp_path: Path,
    tiny_model: Path,
) -> None:
    clip, notes = make(tmp_path / name), list[str]()
    vsr.enhance(clip, tmp_path / target, model=str(tiny_model), note=notes.append, **options)
    assert len([line for line in notes if words in line]) == 1, notes
    (tmp_path / target).unlink()
    with pytest.raises(StrictError) as caught:
        vsr.enhance(clip, tmp_path / target, model=str(tiny_model), strict=True, **options)
    assert words in str(caught.value)
    assert not (tmp_path / target).exists()
