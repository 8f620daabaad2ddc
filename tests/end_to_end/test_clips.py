"""Every real clip, through vsr and back: nothing is lost, or it is named; a broken file leaves one line."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from av.sidedata.sidedata import Type

import vsr
from vsr.errors import InputError

_DATA = Path(os.environ.get("VSR_DATA", ""))
_INDEX = _DATA / "clips" / "index.json"
_CLIPS = {c["file"]: c for c in json.loads(_INDEX.read_text("utf-8"))} if _INDEX.is_file() else {}

_BROKEN = ("entry12-variant1-init", "sample_fragmented_zero_size_atom", "test-073647bf.264", "amr_nb_1f")
# Sources with timestamps that stand still, go back or are not there (raw H.264): frames are only counted.
_UNTIMED = ("frame0123", "sample_with_fake_auxiliary_tracks", "test_res_change")
_ISO_SUFFIXES = (".mp4", ".mov", ".m4v", ".3gp")
_UNSPECIFIED, _RANGE_UNSPECIFIED = 2, 0
_FEW_PIXELS = 10_000_000  # of a whole clip: a second or two through a network with memory
_MILLISECOND = Fraction(1, 1000)  # the tick of Matroska
_MOV_TEXT_GAP = b"\0\0"  # "nothing on screen", which muxers add and leave out as they see fit

_IS_BROKEN = {name: name.startswith(_BROKEN) for name in _CLIPS}


def _cases() -> list[Any]:
    good = [name for name in _CLIPS if not _IS_BROKEN[name]]
    cases = [(name, ".mkv") for name in good]
    cases += [(name, ".mp4") for name in good if name.endswith(_ISO_SUFFIXES)]
    return [pytest.param(name, suffix, id=f"{name}-to-{suffix[1:]}") for name, suffix in sorted(cases)]


@functools.lru_cache(maxsize=4)
def _source_reading(read: Callable[..., Any], path: Path) -> Any:
    return read(path)


def _pairs(source: Any, output: Any, notes: list[str]) -> list[tuple[Any, Any, str]]:
    """(stream in, stream out, its note) of every stream that no note says is left out."""
    notes_by_index = {int(m[1]): line for line in notes if (m := re.search(r"stream (\d+) \(", line))}
    kept = [s for s in source.others if "left out" not in notes_by_index.get(s.index, "")]
    kept = [s for s in kept if "is a chapter track" not in notes_by_index.get(s.index, "")]
    found = output.others
    if output.chapters and output.format.startswith("mov"):  # chapters lie in a last track of their own
        assert found.pop().type == "data"
    assert [s.type for s in found] == [s.type for s in kept]
    return [(a, b, notes_by_index.get(a.index, "")) for a, b in zip(kept, found, strict=True)]


def _check_times(source: Any, output: Any, tolerance_ticks: Fraction = Fraction(1, 2)) -> None:
    for position, (want, got) in enumerate(zip(source.times, output.times, strict=True)):
        assert abs(want - got) <= tolerance_ticks * output.tick, f"frame {position}: {want} became {got}"


def _check_brightness(source: Any, output: Any) -> None:
    """The right picture at each place: encoding is lossy, but not so much."""
    worst = max(abs(a - b) for a, b in zip(source.brightness, output.brightness, strict=True))
    assert worst <= 3


def _check_color(source: Any, output: Any) -> None:
    matrix, primaries, transfer, color_range = output.tags
    assert _UNSPECIFIED not in (primaries, transfer)
    assert matrix != _UNSPECIFIED or source.first.format.name.startswith("gray")  # which no matrix touches
    assert color_range != _RANGE_UNSPECIFIED
    for tag, was in zip(output.tags[:3], source.tags[:3], strict=True):
        assert was in (tag, _UNSPECIFIED, 0)  # 0 is reserved in the source, or a matrix that means RGB
    assert color_range == (2 if source.tags[3] == 2 else 1)
    bits = [reading.first.format.components[0].bits for reading in (source, output)]
    assert bits[1] == bits[0]


def _check_geometry(source: Any, output: Any, scale: int = 1) -> None:
    assert (output.first.width, output.first.height) == (source.first.width * scale, source.first.height * scale)
    assert output.aspect == source.aspect
    assert output.first.rotation == source.first.rotation
    assert (output.display_matrix or ())[:6] == (source.display_matrix or ())[:6]


def _check_hdr(source: Any, output: Any) -> None:
    for kind in (Type.MASTERING_DISPLAY_METADATA, Type.CONTENT_LIGHT_LEVEL):
        assert output.side_data(kind) == source.side_data(kind)


def _language(stream: Any) -> str:
    return stream.metadata.get("language", "und")


def _check_streams(source: Any, output: Any, notes: list[str]) -> None:
    for before, after, note in _pairs(source, output, notes):
        assert _language(after) == _language(before)
        assert after.metadata.get("title") == before.metadata.get("title")
        if "transcoded" not in note:
            assert after.codec == before.codec
            _check_packets(before, after)


def _check_packets(before: Any, after: Any) -> None:
    """The same bytes at the same times."""
    gaps = [_MOV_TEXT_GAP] if before.codec == "mov_text" else []
    kept = [[p for p in zip(s.packets, s.times, strict=True) if p[0] not in gaps] for s in (before, after)]
    assert [packet for packet, _ in kept[1]] == [packet for packet, _ in kept[0]]
    assert all(abs(got - want) <= _MILLISECOND for (_, want), (_, got) in zip(*kept, strict=True))
    assert before.packets or before.type == "attachment"


def _check_chapters(source: Any, output: Any) -> None:
    assert len(output.chapters) == len(source.chapters)
    for want, got in zip(source.chapters, output.chapters, strict=True):
        assert got[2] == want[2]
        assert abs(got[0] - want[0]) <= _MILLISECOND
        assert abs(got[1] - want[1]) <= _MILLISECOND


def _clips_with_memory() -> list[str]:
    """List some short clips, or all where VSR_CLIPS_MODEL names a model to see them through."""
    names = sorted((name for name in _CLIPS if not _IS_BROKEN[name]), key=_num_pixels)
    short = [name for name in names if _num_pixels(name) < _FEW_PIXELS]
    return names if "VSR_CLIPS_MODEL" in os.environ else short[-10::2]


def _num_pixels(name: str) -> int:
    """Count the pixels of all frames of a clip, 0 where the index does not say."""
    clip = _CLIPS[name]
    return (clip["n"] or 0) * (clip["w"] or 0) * (clip["h"] or 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", _clips_with_memory())
def test_nothing_is_lost_by_a_network_with_memory(
    name: str, data_folder: Path, tmp_path: Path, memory_model: Path, read_back: Callable[..., Any]
) -> None:
    """It holds frames back and looks at their neighbours; VSR_CLIPS_MODEL names another than the small one."""
    path, target = data_folder / "clips" / name, tmp_path / "out.mkv"
    model, notes = os.environ.get("VSR_CLIPS_MODEL", str(memory_model)), list[str]()
    report = vsr.enhance(path, target, note=notes.append, model=model, preset="ultrafast", crf=30)
    source, output = _source_reading(read_back, path), read_back(target)
    assert len(output.times) == len(source.times) == report.num_frames > 0
    if not name.startswith(_UNTIMED):
        _check_times(source, output)
    _check_brightness(source, output)
    _check_color(source, output)
    _check_geometry(source, output, output.first.width // source.first.width)
    assert output.first.width > source.first.width
    _check_streams(source, output, notes)
    _check_chapters(source, output)


@pytest.mark.parametrize(("name", "suffix"), _cases())
def test_nothing_is_lost(
    name: str, suffix: str, data_folder: Path, tmp_path: Path, tiny_model: Path, read_back: Callable[..., Any]
) -> None:
    path, target = data_folder / "clips" / name, tmp_path / f"out{suffix}"
    notes: list[str] = []
    options = {"model": str(tiny_model), "preset": "ultrafast", "crf": 30}
    report = vsr.enhance(path, target, note=notes.append, **options)
    source, output = _source_reading(read_back, path), read_back(target)

    assert len(output.times) == len(source.times) == report.num_frames > 0
    if not name.startswith(_UNTIMED):
        _check_times(source, output)
    _check_brightness(source, output)
    _check_color(source, output)
    _check_geometry(source, output)
    _check_hdr(source, output)
    _check_streams(source, output, notes)
    _check_chapters(source, output)
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("name", sorted(name for name, broken in _IS_BROKEN.items() if broken))
def test_broken_file_gives_one_line_and_no_output(
    name: str, data_folder: Path, tmp_path: Path, tiny_model: Path, clean_folder: Callable[..., None]
) -> None:
    with pytest.raises(InputError) as caught:
        vsr.enhance(data_folder / "clips" / name, tmp_path / "out.mkv", model=str(tiny_model))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    clean_folder()


def test_all_clips_of_the_index_are_there(data_folder: Path) -> None:
    assert _CLIPS, "the index of clips was not found when tests were collected"
    assert len(_cases()) > 30
    assert sum(_IS_BROKEN.values()) == len(_BROKEN)
    assert all((data_folder / "clips" / name).is_file() for name in _CLIPS)


# -- what the clips do not show ------------------------------------------------------------------------


def _rich_clip(make_clip: Callable[..., Path], track: Any, path: Path) -> Path:
    """Variable rate with B-frames, a late start, two languages, chapters, aspect ratio and rotation."""

    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(90)
        stream.metadata["language"] = "fra"
        stream.metadata["title"] = "main picture"

    return make_clip(
        path,
        pts=(4500, 7500, 12000, 12600, 15000, 30000, 30300, 60000, 63003, 66006),
        time_base=Fraction(1, 90000),
        audio=[track("aac", {"language": "deu", "title": "Ton"}), track("ac3", {"language": "jpn"})],
        chapters=[(0, 250, "One"), (250, 700, "Two: ü")],
        metadata={"title": "A film", "comment": "kept"},
        options={"preset": "medium", "bf": "3"},
        prepare=prepare,
    )


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_rich_clip_keeps_everything(
    suffix: str,
    tmp_path: Path,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
    Track: Any,
) -> None:
    path, target = _rich_clip(make_clip, Track, tmp_path / f"in{suffix}"), tmp_path / f"out{suffix}"
    notes: list[str] = []
    vsr.enhance(path, target, model=str(tiny_model), note=notes.append)
    source, output = read_back(path), read_back(target)
    # The clip is what it is meant to be; without this, equality below would prove little.
    assert len({b - a for a, b in itertools.pairwise(source.times)}) > 5
    assert source.times[0] > Fraction(1, 25)
    assert source.aspect == Fraction(4, 3)
    assert source.first.rotation in (90, -90)
    assert len(source.chapters) == 2
    assert len(source.others) - (suffix != ".mkv") == 2  # ISO files hold chapters in a track of their own

    _check_times(source, output)
    _check_brightness(source, output)
    _check_geometry(source, output)
    _check_streams(source, output, notes)
    _check_chapters(source, output)
    assert output.metadata["title"] == "A film"
    assert output.metadata["comment"] == "kept"
    assert _language(output.video) == "fra"
    assert output.video.metadata.get("title") == source.video.metadata.get("title")


def test_attachment_goes_along_and_is_named_where_it_cannot(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    path = make_clip(tmp_path / "in.mkv", attachment=b"a note")
    notes: list[str] = []
    vsr.enhance(path, tmp_path / "out.mkv", model=str(tiny_model), note=notes.append)
    assert [s.type for s in read_back(tmp_path / "out.mkv").streams] == ["video", "attachment"]
    assert not [line for line in notes if "left out" in line]
    vsr.enhance(path, tmp_path / "out.mp4", model=str(tiny_model), note=notes.append)
    assert len([line for line in notes if "attachment" in line and "left out" in line]) == 1


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (2, 1)])
def test_odd_sizes_keep_every_pixel(
    size: tuple[int, int],
    tmp_path: Path,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
) -> None:
    path = make_clip(tmp_path / "in.mkv", codec="ffv1", size=size, pts=(0, 1, 2), options={})
    assert read_back(path).first.format.name == "yuv420p"
    vsr.enhance(path, tmp_path / "out.mkv", model=str(tiny_model), pix_fmt="yuv444p", crf=0)
    output = read_back(tmp_path / "out.mkv")
    assert (output.first.width, output.first.height) == size
    assert len(output.times) == 3
    vsr.enhance(path, tmp_path / "even.mkv", model=str(tiny_model))
    even = read_back(tmp_path / "even.mkv").first
    assert (even.width, even.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
