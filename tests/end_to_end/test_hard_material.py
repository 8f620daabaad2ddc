"""The conformance table: hard clips through vsr, and what ffprobe finds in source and output beside each other.

Every row says what makes its clip hard, which is checked too, and what must not be the same, with the reason.
All else must be: frames, timestamps, samples, tags, geometry, side data, streams, packets, chapters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import hard_clips as clips
import numpy as np
import pytest
from ffprobe_reading import Probe, ProbedStream, needs_ffprobe, probe

import vsr
from vsr.errors import InputError, StrictError

pytestmark = needs_ffprobe

_DATA = Path(os.environ.get("VSR_DATA", ""))
_UNKNOWN = ("unknown", "unspecified", "reserved", "")
_MILLISECOND = Fraction(1, 1000)
_LOSSLESS = {"codec": "ffv1"}
_SILENCE_OF_MOV_TEXT = 2  # bytes of "nothing on screen", which muxers add and leave out as they see fit


@dataclass(frozen=True)
class Row:
    """A hard clip, what is done with it, and what may differ afterwards.

    is_hard: whether ffprobe sees in the clip what the row is about.
    differs: checks that do not apply, each with the reason.
    notes: words, one of the lines that vsr says must contain each.
    also: checks of this row alone.
    """

    name: str
    make: Callable[[Path], Path]
    is_hard: Callable[[Probe], bool]
    suffix: str = ".mkv"
    to: str = ".mkv"
    options: Mapping[str, Any] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    also: Callable[[Probe, Probe], None] = lambda source, output: None


def _shown_seconds(reading: Probe) -> list[Fraction]:
    return [time for time in reading.times if time is not None]


def _has_hidden_frames(reading: Probe) -> bool:
    return clips.num_coded_frames(reading.path) > len(reading.times)


def _gaps(reading: Probe) -> set[Fraction]:
    return {b - a for a, b in pairwise(_shown_seconds(reading))}


# -- what must be the same -----------------------------------------------------------------------------


def _check_frames(source: Probe, output: Probe) -> None:
    assert len(output.video.frames) == len(source.video.frames) > 0


def _check_times(source: Probe, output: Probe) -> None:
    """Every frame at its time, exact to the tick of the output's container."""
    # FFmpeg 5.1 finds no time for the first frames of some MPEG program streams; later versions do.
    assert sum(time is not None for time in source.times) >= 0.9 * len(source.times)
    for number, (want, got) in enumerate(zip(source.times, output.times, strict=True)):
        assert got is not None
        assert want is None or abs(want - got) <= output.video.time_base / 2, f"frame {number}: {want} became {got}"


def _check_size(source: Probe, output: Probe) -> None:
    for before, after in zip(source.video.frames, output.video.frames, strict=True):
        assert (after.width, after.height) == (before.width, before.height)


def _check_samples(source: Probe, output: Probe) -> None:
    """Depth and subsampling stay, and every frame shows what it showed."""
    assert output.first.pixel_format.replace("j", "") == source.first.pixel_format.replace("j", "")
    before, after = source.grids(), output.grids()
    assert before.shape == after.shape
    assert np.abs(before.mean((1, 2)) - after.mean((1, 2))).max() <= 1.5
    assert np.abs(before - after).max() <= 12


def _check_color(source: Probe, output: Probe) -> None:
    """Tags stay, and what was not tagged is."""
    for name, tag in output.video.color.items():
        was = source.video.color[name]
        if was not in _UNKNOWN:
            assert tag == was, name
    is_gray = source.first.pixel_format.startswith("gray")
    explicit = ("color_primaries", "color_transfer", "color_range", *(() if is_gray else ("color_space",)))
    assert not [name for name in explicit if output.video.color[name] in _UNKNOWN]


def _check_geometry(source: Probe, output: Probe) -> None:
    assert output.video.aspect == source.video.aspect
    assert output.video.rotation_degrees == source.video.rotation_degrees
    # Matroska has angles, and no place for the translation that brings the picture back.
    numbers = slice(0, 6) if "matroska" in output.format else slice(None)
    assert output.video.display_matrix[numbers] == source.video.display_matrix[numbers]


def _check_hdr(source: Probe, output: Probe) -> None:
    for name in ("Mastering display metadata", "Content light level metadata"):
        assert output.first.side_data.get(name) == source.first.side_data.get(name)


def _check_streams(source: Probe, output: Probe) -> None:
    before, after = _in_order(source), _in_order(output)
    assert [(s.type, s.codec) for s in after] == [(s.type, s.codec) for s in before]
    for was, now in zip(before, after, strict=True):
        assert now.language == was.language
        assert now.tags.get("title") == was.tags.get("title")
        assert now.dispositions == was.dispositions
        _check_packets(was, now)
    assert output.video.language == source.video.language
    assert output.video.dispositions == source.video.dispositions


def _in_order(reading: Probe) -> list[ProbedStream]:
    """The other streams; without the text track in which ISO files keep chapters."""
    return [s for s in reading.others if not (s.type == "data" and s.codec == "bin_data")]


def _check_packets(before: ProbedStream, after: ProbedStream) -> None:
    """The same bytes at the same times."""
    least = _SILENCE_OF_MOV_TEXT if before.codec == "mov_text" else -1
    kept = [
        [(p.digest, t) for p, t in zip(s.packets, s.packet_seconds, strict=True) if p.size > least]
        for s in (before, after)
    ]
    assert [digest for digest, _ in kept[1]] == [digest for digest, _ in kept[0]]
    assert kept[0] or before.type in ("attachment", "data")
    assert all(abs(got - want) <= _MILLISECOND for (_, want), (_, got) in zip(*kept, strict=True))
    if before.type == "attachment":
        assert after.extradata_digest == before.extradata_digest
        assert after.tags == before.tags


def _check_chapters(source: Probe, output: Probe) -> None:
    assert [c.title for c in output.chapters] == [c.title for c in source.chapters]
    for want, got in zip(source.chapters, output.chapters, strict=True):
        assert abs(got.start_seconds - want.start_seconds) <= _MILLISECOND
        assert abs(got.end_seconds - want.end_seconds) <= _MILLISECOND


def _check_metadata(source: Probe, output: Probe) -> None:
    for name in ("title", "comment"):
        assert output.tags.get(name) == source.tags.get(name)


CHECKS: dict[str, Callable[[Probe, Probe], None]] = {
    "frames": _check_frames,
    "times": _check_times,
    "size": _check_size,
    "samples": _check_samples,
    "color": _check_color,
    "geometry": _check_geometry,
    "hdr": _check_hdr,
    "streams": _check_streams,
    "chapters": _check_chapters,
    "metadata": _check_metadata,
}


# -- what some rows check besides ----------------------------------------------------------------------


def _same_samples(pixel_format: str) -> Callable[[Probe, Probe], None]:
    def check(source: Probe, output: Probe) -> None:
        assert output.digests(pixel_format) == source.digests(pixel_format)

    return check


def _video_is(codec: str, pixel_format: str | None = None) -> Callable[[Probe, Probe], None]:
    def check(source: Probe, output: Probe) -> None:
        assert output.video.codec == codec
        assert pixel_format in (None, output.first.pixel_format)

    return check


def _progressive(source: Probe, output: Probe) -> None:
    assert not any(frame.is_interlaced for frame in output.video.frames)


def _first_moments(field: str) -> Callable[[Probe, Probe], None]:
    """Every frame shows what its first field showed, in whole lines."""

    def check(source: Probe, output: Probe) -> None:
        assert not any(frame.is_interlaced for frame in output.video.frames)
        assert output.first.pixel_format == source.first.pixel_format
        moments, shown = source.grids(f"field=type={field}").mean((1, 2)), output.grids().mean((1, 2))
        assert np.abs(shown - moments).max() <= 1.5

    return check


def _of_first_size(source: Probe, output: Probe) -> None:
    assert {(f.width, f.height) for f in output.video.frames} == {(source.first.width, source.first.height)}


# -- the table -----------------------------------------------------------------------------------------

TIME = [
    Row("variable-rate", clips.variable_rate, lambda p: len(_gaps(p)) > 5, ".mp4", ".mp4"),
    Row("variable-rate-mkv", clips.variable_rate, lambda p: len(_gaps(p)) > 5),
    Row("late-start", clips.late_start, lambda p: p.times[0] > 1, ".mp4", ".mp4"),
    Row("late-start-mkv", clips.late_start, lambda p: p.times[0] > 1),
    Row(
        "edit-list",
        clips.edit_list,
        lambda p: len(p.video.packets) > len(p.video.frames),
        ".mp4",
        ".mp4",
        differs={"streams": "sound from before the edit list's start is not played, nor is it in the output"},
    ),
    Row("negative-dts", clips.negative_dts, lambda p: (p.video.packets[0].dts or 0) < 0, ".mp4", ".mp4"),
    Row("b-pyramid", clips.b_pyramid, lambda p: _is_reordered(p), ".mp4", ".mp4"),
    Row("b-pyramid-hevc", clips.b_pyramid_hevc, lambda p: _is_reordered(p)),
    Row("hidden-frames", clips.hidden_frames, _has_hidden_frames, ".webm", ".webm", {"preset": None}),
    Row("wrapping-clock", clips.wrapping_clock, lambda p: p.times[0] < 0 < p.times[-1], ".ts", ".ts"),
    Row("very-long-gop", clips.very_long_gop, lambda p: len(p.times) == 1000, ".mp4"),
    Row("one-frame", clips.one_frame, lambda p: len(p.times) == 1, ".mp4", ".mp4"),
    Row("wrong-duration-mp4", clips.wrong_header, lambda p: True, ".mp4", ".mp4"),
    Row("wrong-duration-mkv", clips.wrong_header, lambda p: True),
    Row("wrong-frame-count-avi", clips.wrong_header, lambda p: True, ".avi"),
]

STREAMS = [
    Row("many-tracks", clips.many_tracks, lambda p: len(p.others) == 5),
    Row("many-tracks-mp4", clips.many_tracks, lambda p: len(p.others) == 5, ".mp4", ".mp4"),
    Row("two-pictures", clips.two_pictures, lambda p: p.video.index == 1),
    Row("chapters", clips.chapters, lambda p: len(p.chapters) == 3),
    Row("chapters-mp4", clips.chapters, lambda p: len(p.chapters) == 3, ".mp4", ".mp4"),
    Row("font", clips.font, lambda p: p.others[0].type == "attachment"),
    Row("cover", clips.cover, lambda p: "attached_pic" in p.others[-1].dispositions, ".mp4", ".mp4"),
    Row("cover-mkv", clips.cover, lambda p: "attached_pic" in p.others[-1].dispositions),
    Row("timecode", clips.timecode, lambda p: p.others[0].type == "data", ".mov", ".mov"),
]

GEOMETRY = [
    *(
        Row(
            f"turned-{kind.replace(' ', '-')}",
            partial(clips.turned, kind=kind),
            lambda p: len(p.video.display_matrix) == 9,
            ".mp4",
            ".mp4",
        )
        for kind in clips.DISPLAY_MATRICES
    ),
    Row("anamorphic-mp4", clips.anamorphic, lambda p: p.video.aspect == Fraction(64, 45), ".mp4", ".mp4"),
    Row("anamorphic-mkv", clips.anamorphic, lambda p: p.video.aspect == Fraction(64, 45)),
    *(
        Row(
            f"size-{size}",
            partial(clips.of_size, size=size),
            lambda p: p.first.width < 100,
            options=_LOSSLESS,
            also=_same_samples("yuv444p"),
        )
        for size in ("2x2", "3x3", "17x31", "63x47")
    ),
    Row("8k", clips.of_8k, lambda p: (p.first.width, p.first.height) == (7680, 4320), ".mov"),
    Row(
        "size-changes",
        clips.size_changes,
        lambda p: len({(f.width, f.height) for f in p.video.frames}) == 2,
        ".ts",
        differs={"size": "a file has one size: that of the first frame"},
        notes=("changes size to 96x64",),
        also=_of_first_size,
    ),
]


def _is_reordered(reading: Probe) -> bool:
    """Whether packets lie in an order that needs two frames to be held back at least."""
    pts = [packet.pts or 0 for packet in reading.video.packets]
    return max(sum(later < time for later in pts[place:]) for place, time in enumerate(pts)) >= 3


def _format_row(name: str, alpha: bool = False) -> Row:
    return Row(
        f"samples-{name}",
        partial(clips.of_format, pixel_format=name),
        lambda p: p.first.pixel_format == name,
        options=_LOSSLESS,
        also=_same_samples(name),
    )


_FORMATS = (
    "yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "yuv420p16le",
    "gray", "gray10le", "gray16le", "yuva420p", "yuva444p10le",
)  # fmt: skip

SAMPLES = [
    *(_format_row(name) for name in _FORMATS),
    *(
        Row(f"h264-{name}", partial(clips.deep_h264, pixel_format=name), lambda p: True, options={"codec": "libx264"})
        for name in ("yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le")
    ),
    Row("12-bit", clips.deep_hevc, lambda p: p.first.pixel_format == "yuv420p12le", also=_video_is("hevc")),
    Row("hdr10", clips.hdr10, lambda p: len(p.first.side_data) >= 2, ".mp4", ".mp4", also=_video_is("hevc")),
    Row("hdr10-mkv", clips.hdr10, lambda p: len(p.first.side_data) >= 2, also=_video_is("hevc", "yuv420p10le")),
    Row("hlg", clips.hlg, lambda p: p.video.color["color_transfer"] == "arib-std-b67", also=_video_is("hevc")),
    *(
        Row(
            f"chroma-at-top-left-{encoder[1]}",
            partial(clips.chroma_at_top_left, encoder=encoder),
            lambda p: p.video.color["chroma_location"] == "topleft",
            options={"codec": encoder[1]},
        )
        for encoder in (clips.X264, clips.X265)
    ),
    Row("full-range", clips.full_range, lambda p: p.video.color["color_range"] == "pc", ".mp4", ".mp4"),
    Row("motion-jpeg", clips.motion_jpeg, lambda p: p.video.color["chroma_location"] == "center", ".mov", ".mp4"),
    Row(
        "prores-4444",
        clips.prores_4444,
        lambda p: p.first.pixel_format == "yuva444p12le",
        ".mov",
        ".mov",
        {"codec": "prores_ks", "preset": None, "crf": None},
    ),
    Row(
        "png-in-mov",
        clips.png_in_mov,
        lambda p: p.first.pixel_format == "rgba",
        ".mov",
        ".mov",
        {"codec": "png", "preset": None, "crf": None},
        differs={"hdr": "PNG holds the primaries as cHRM, which ffprobe 5.1 takes for mastering display metadata"},
        also=_same_samples("rgba"),
    ),
    Row(
        "alpha-to-h264",
        clips.prores_4444,
        lambda p: "yuva444p1" in p.first.pixel_format,
        ".mov",
        ".mp4",
        options={"codec": "libx264"},
        differs={"samples": "H.264 has no alpha"},
        notes=("alpha is left out: libx264 has none",),
        also=_video_is("h264", "yuv444p10le"),
    ),
]

_HALF_OF_THE_LINES = {"samples": "of two moments in a frame, the first is shown"}

FIELDS = [
    Row(
        f"interlaced-{codec}-{'top' if top else 'bottom'}",
        partial(clips.interlaced, codec=codec, top_first=top),
        lambda p: all(f.is_interlaced for f in p.video.frames),
        ".ts",
        differs=_HALF_OF_THE_LINES,
        notes=("deinterlaced",),
        also=_first_moments("top" if top else "bottom"),
    )
    for codec in ("mpeg2video", "h264")
    for top in (True, False)
] + [
    Row(
        "interlaced-later",
        clips.interlaced_later,
        lambda p: {f.is_interlaced for f in p.video.frames} == {True, False} and not p.first.is_interlaced,
        ".ts",
        notes=("interlaced from 0.4", "deinterlaced"),
        also=_first_moments("top"),
    ),
    Row("pulled-down", clips.pulled_down, lambda p: any(f.repeat_pict for f in p.video.frames)),
    Row(
        "telecined",
        clips.telecined,
        lambda p: p.first.is_interlaced,
        ".ts",
        differs=_HALF_OF_THE_LINES,
        notes=("deinterlaced",),
        also=_first_moments("top"),
    ),
    Row(
        "digital-tape",
        clips.digital_tape,
        lambda p: p.first.is_interlaced and p.first.pixel_format == "yuv411p",
        ".avi",
        differs={"samples": "no encoder takes 4:1:1", "color": "4:2:2 has no place for chroma at the top"},
        notes=("deinterlaced", "yuv411p is read as"),
        also=_progressive,
    ),
]

DAMAGE = [
    Row("open-gop", clips.open_gop, lambda p: len(p.video.packets) > len(p.times), ".ts"),
    Row("starts-without-key", clips.starts_without_key, lambda p: len(p.video.packets) > len(p.times), ".ts"),
    Row("cut-off-mkv", clips.cut_off, lambda p: 15 < len(p.times) < 20),
    Row("cut-off-ts", clips.cut_off, lambda p: 15 < len(p.times) < 20, ".ts", ".ts", notes=("1 damaged packet",)),
]

ROWS = TIME + STREAMS + GEOMETRY + SAMPLES + FIELDS + DAMAGE


def _enhanced(row: Row, folder: Path, model: Path) -> tuple[Probe, Probe, list[str]]:
    clip = row.make(folder / f"in{row.suffix}")
    source = probe(clip)
    assert row.is_hard(source), "the clip is not what it is meant to be"
    target, notes = folder / f"out{row.to}", list[str]()
    options = {"model": str(model), "preset": "ultrafast", "crf": 8, **row.options}
    if options.get("codec") == "ffv1":
        del options["preset"], options["crf"]
    vsr.enhance(clip, target, note=notes.append, **options)
    return source, probe(target), notes


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_hard_clip(row: Row, tmp_path: Path, tiny_model: Path) -> None:
    source, output, notes = _enhanced(row, tmp_path, tiny_model)
    assert set(row.differs) <= set(CHECKS)
    for name, check in CHECKS.items():
        if name not in row.differs:
            check(source, output)
    row.also(source, output)
    for words in row.notes:
        assert any(words in line for line in notes), notes
    if not row.notes:
        assert not [line for line in notes if "left out" in line or "damaged" in line]


def test_a_clock_that_starts_anew_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    """Two recordings behind each other are as long as both, in picture and sound."""
    clip, target, notes = clips.clock_that_restarts(tmp_path / "in.ts"), tmp_path / "out.mkv", list[str]()
    source = probe(clip)
    pts = [packet.pts or 0 for packet in source.video.packets]
    assert len(pts) == 40 and max(pts[:20]) > max(pts[20:]) - 90000
    vsr.enhance(clip, target, model=str(tiny_model), preset="ultrafast", note=notes.append)
    output = probe(target)
    times = _shown_seconds(output)
    assert len(times) == 40
    gaps = [round(float(b - a), 3) for a, b in pairwise(times)]
    assert set(gaps[:19] + gaps[20:]) == {0.04} and 0.04 <= gaps[19] < 0.15  # the second begins behind all of the first
    sound = output.of_type("audio")[0]
    assert [p.digest for p in sound.packets] == [p.digest for p in source.of_type("audio")[0].packets]
    assert all(0 < float(b - a) < 0.15 for a, b in pairwise(sound.packet_seconds))
    assert [line for line in notes if "starts anew once" in line]


# -- what cannot be read, or not whole -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        pytest.param(clips.cut_off, "in.mp4", "", id="mp4-without-index"),
        pytest.param(clips.no_frames, "in.mkv", "no video frame", id="no-frames-mkv"),
        pytest.param(clips.no_frames, "in.mp4", "no video", id="no-frames-mp4"),
        pytest.param(clips.song_with_cover, "in.mp3", "no video stream", id="song-with-cover"),
    ],
)
def test_what_has_no_frames_gives_one_line_and_no_output(
    make: Callable[[Path], Path], name: str, words: str, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "made").mkdir()
    clip = make(tmp_path / "made" / name)
    with pytest.raises(InputError) as caught:
        vsr.enhance(clip, tmp_path / "out.mkv", model=str(tiny_model))
    assert name in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


_DAMAGED = [
    pytest.param("in.mkv", (3, 4, 13), id="mkv"),
    pytest.param("in.mp4", (5,), id="mp4"),
    pytest.param("in.ts", (12, 16), id="ts"),
]


@pytest.mark.parametrize(("name", "numbers"), _DAMAGED)
def test_damage_is_concealed_and_counted(name: str, numbers: tuple[int, ...], tmp_path: Path, tiny_model: Path) -> None:
    clip, notes = clips.damaged(tmp_path / name, numbers), list[str]()
    vsr.enhance(clip, tmp_path / "out.mkv", model=str(tiny_model), preset="ultrafast", note=notes.append)
    whole, output = probe(tmp_path / f"whole{clip.suffix}"), probe(tmp_path / "out.mkv")
    assert len(output.times) == len(whole.times) == 20
    _check_times(whole, output)
    (line,) = [line for line in notes if "damaged" in line]
    assert name in line


def test_lost_packets_of_a_broadcast_are_counted(tmp_path: Path, tiny_model: Path) -> None:
    clip, notes = clips.lost_packets(tmp_path / "in.ts"), list[str]()
    vsr.enhance(clip, tmp_path / "out.mkv", model=str(tiny_model), preset="ultrafast", note=notes.append)
    assert len(probe(tmp_path / "out.mkv").times) == 20
    assert [line for line in notes if "2 damaged packets" in line]
    with pytest.raises(StrictError):
        vsr.enhance(clip, tmp_path / "strict.mkv", model=str(tiny_model), strict=True)
    assert not (tmp_path / "strict.mkv").exists()


@pytest.mark.parametrize(("name", "numbers"), _DAMAGED)
def test_damage_is_an_error_when_strict(name: str, numbers: tuple[int, ...], tmp_path: Path, tiny_model: Path) -> None:
    clip = clips.damaged(tmp_path / name, numbers)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StrictError) as caught:
        vsr.enhance(clip, tmp_path / "out.mkv", model=str(tiny_model), preset="ultrafast", strict=True)
    assert "damaged" in str(caught.value) and name in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# -- every clip of the data folder ---------------------------------------------------------------------


def _names() -> list[str]:
    index = _DATA / "clips" / "index.json"
    entries = json.loads(index.read_text("utf-8")) if index.is_file() else []
    return sorted(entry["file"] for entry in entries)


_BROKEN = ("entry12-variant1-init", "sample_fragmented_zero_size_atom", "test-073647bf.264", "amr_nb_1f")
_CLIPS = [name for name in _names() if not name.startswith(_BROKEN)]


_NO_MOV_TEXT = {"streams": "Matroska holds no mov_text, which becomes ASS and is named"}
_DIFFERS: dict[str, dict[str, str]] = {  # by the beginning of a clip's name
    "MOV00006": {"streams": "Matroska holds no AMR, which becomes Opus and is named"},
    "awesome_movie": _NO_MOV_TEXT,
    "frame0123": {"times": "they stand still in places, and are moved on"},
    "no-correct-videoframe": {"streams": "Matroska holds none of its data streams, which are named"},
    "sample_with_fake_auxiliary": {"times": "they stand still in places, and are moved on"},
    "sample_with_vtt": {"streams": "FFmpeg does not know its subtitles, which are named"},
    "test_res_change": {"size": "a file has one size: that of the first frame", "times": "it has none"},
}
_DECODED_ELSEWHERE = {"samples": "test_clips.py compares them, with a reader that is quicker to start"}


@pytest.mark.parametrize("name", _CLIPS)
def test_clip_of_the_data_folder(name: str, data_folder: Path, tmp_path: Path, tiny_model: Path) -> None:
    notes: list[str] = []
    clip, target = data_folder / "clips" / name, tmp_path / "out.mkv"
    vsr.enhance(clip, target, model=str(tiny_model), preset="ultrafast", crf=20, note=notes.append)
    source, output = probe(clip), probe(target)
    differs = next((d for start, d in _DIFFERS.items() if name.startswith(start)), {}) | _DECODED_ELSEWHERE
    for check, run in CHECKS.items():
        if check not in differs:
            run(source, output)
    missing = len(_in_order(source)) - len(_in_order(output))
    assert len([line for line in notes if "left out" in line]) == missing
    assert not [line for line in notes if "damaged" in line]


# -- alpha that lies beside the picture ----------------------------------------------------------------


def _alpha(path: Path, *decoder: str) -> np.ndarray:
    """(frames, 8, 8) means of alpha, as it is stored."""
    line = [*decoder, "-i", path, "-map", "0:v", "-fps_mode", "passthrough"]
    raw = clips.run_ffmpeg([*line, "-vf", "alphaextract,format=gray,scale=8:8:flags=area", "-f", "rawvideo", "-"])
    return np.frombuffer(raw, np.uint8).reshape(-1, 8, 8).astype(float)


@pytest.mark.parametrize(
    ("suffix", "codec", "decoder"), [(".mkv", "ffv1", ()), (".webm", "libvpx-vp9", ("-c:v", "libvpx-vp9"))]
)
def test_alpha_of_webm_is_kept(
    suffix: str, codec: str, decoder: tuple[str, ...], tmp_path: Path, tiny_model: Path
) -> None:
    """FFmpeg's own decoder of VP9 does not see it."""
    clip, target, notes = clips.vp9_alpha(tmp_path / "in.webm"), tmp_path / f"out{suffix}", list[str]()
    before = _alpha(clip, "-c:v", "libvpx-vp9")
    assert before.max() - before.min() > 50
    vsr.enhance(clip, target, model=str(tiny_model), codec=codec, note=notes.append)
    assert not [line for line in notes if "alpha" in line]
    after = _alpha(target, *decoder)
    assert after.shape == before.shape
    assert np.abs(after - before).max() <= 3
    _check_times(probe(clip), probe(target))


def test_damage_at_the_end_takes_no_frame(tmp_path: Path, tiny_model: Path) -> None:
    """A decoder of many threads gives up all that it holds when one of its last packets is damaged."""
    clip, notes = clips.damaged_end(tmp_path / "in.mov"), list[str]()
    vsr.enhance(clip, tmp_path / "out.mkv", model=str(tiny_model), preset="ultrafast", note=notes.append)
    whole, output = probe(tmp_path / "whole.mov"), probe(tmp_path / "out.mkv")
    assert len(output.times) == len(whole.times) == 20
    _check_times(whole, output)
    assert len([line for line in notes if "damaged packet" in line]) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_download_that_broke_off_is_named(suffix: str, tmp_path: Path, tiny_model: Path) -> None:
    clip, notes = clips.half_of_it(tmp_path / f"in{suffix}"), list[str]()
    report = vsr.enhance(clip, tmp_path / "out.mkv", model=str(tiny_model), preset="ultrafast", note=notes.append)
    assert report.num_frames == len(probe(tmp_path / "out.mkv").times) == 40
    assert len([line for line in notes if "promises 3.2 s, and there are 1.6 s" in line]) == 1, notes
    notes.clear()
    whole = tmp_path / f"whole{suffix}"
    vsr.enhance(whole, tmp_path / "out.mkv", model=str(tiny_model), overwrite=True, note=notes.append)
    assert not [line for line in notes if "promises" in line]


# -- an input that goes away ---------------------------------------------------------------------------


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    """Far more than what is read ahead."""
    noise = clips.pattern("noise=alls=80:allf=t", size="320x240", frames=60)
    return clips.make(tmp_path / "in.mkv", *noise, "-c:v", "mpeg4", "-q:v", "1")


def _enhance_and_meanwhile(clip: Path, model: Path, meddle: Callable[[], object]) -> int:
    """Enhance the clip to out.mkv beside it; `meddle` is called once, when the first frames are done."""
    todo = [meddle]

    def on_progress(progress: object) -> None:
        if todo:
            todo.pop()()

    options = {"model": str(model), "preset": "ultrafast", "batch": 1}
    return vsr.enhance(clip, clip.with_name("out.mkv"), on_progress=on_progress, **options).num_frames


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, tiny_model: Path, long_clip: Path) -> None:
    size = long_clip.stat().st_size
    assert size > 10**6
    with pytest.raises(InputError) as caught:
        _enhance_and_meanwhile(long_clip, tiny_model, lambda: os.truncate(long_clip, size // 2))
    assert "in.mkv" in str(caught.value) and "shorter" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(
    tmp_path: Path, tiny_model: Path, long_clip: Path
) -> None:
    """As for every program: the system keeps it for as long as it is open."""
    assert _enhance_and_meanwhile(long_clip, tiny_model, long_clip.unlink) == 60
    assert len(probe(tmp_path / "out.mkv").times) == 60
