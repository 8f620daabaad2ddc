"""Encoders and containers with wishes of their own: what works keeps every time, and what cannot is said at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

import vsr
from vsr.errors import OutputError

DataFile = Callable[[str], Path]


@pytest.fixture
def enhance(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    def call(source: Path, name: str, **options: Any) -> Path:
        model = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu"}
        vsr.enhance(source, tmp_path / name, **model, **options)
        return tmp_path / name

    return call


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("out.mpg", None),
        ("out.vob", None),
        ("out.mxf", None),
        ("out.mkv", "mpeg2video"),
        ("out.mkv", "mpeg4"),
        ("out.mkv", "mjpeg"),
        ("out.avi", "utvideo"),
        ("out.flv", "flv"),
        ("out.wmv", None),
    ],
)
def test_an_encoder_that_wants_a_constant_rate_gets_it(
    name: str, codec: str | None, small_clip: Path, enhance: Callable[..., Path]
) -> None:
    output = enhance(small_clip, name, codec=codec)
    with av.open(str(output)) as container:
        assert len(container.streams.audio) == 1
        assert sum(1 for _ in container.decode(video=0)) == 20  # their times are checked by the job
    # MPEG-1, JPEG and H.263 have chroma between the pixels, and JPEG full range.
    found = vsr.verify(small_clip, output).differences
    assert not [d for d in found if d.code == "color" and ("chroma" in d.text or "range" in d.text)]


def test_mpeg_is_written_of_mpeg_which_names_few_times(small_clip: Path, enhance: Callable[..., Path]) -> None:
    between = enhance(small_clip, "between.mpg")
    with av.open(str(enhance(between, "out.mpg"))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20


def test_a_variable_rate_keeps_its_times_by_such_an_encoder(
    data_file: DataFile, enhance: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    source = data_file("faults/vfr.mp4")
    assert read_back(enhance(source, "out.mkv", codec="mpeg4")).times == read_back(source).times


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("vfr.mp4", "out.avi", r"avi shows frames at a constant rate.*0\.000 and 0\.001 s"),
        ("vfr.mp4", "out.mxf", r"mxf shows 23\.976 frames a second, and frame 1 of the source comes 0\.001 s after"),
        ("vfr.mp4", "out.vob", r"svcd shows 23\.976 frames a second"),
        ("ns.nut", "out.mpg", r"mpeg shows 23\.976 frames a second, and frame 1 of the source comes 6\.000 s after"),
    ],
)
def test_a_constant_rate_refuses_a_variable_one_before_the_work(
    source: str,
    name: str,
    reason: str,
    data_file: DataFile,
    enhance: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    begun: list[Any] = []
    with pytest.raises(OutputError, match=reason):
        enhance(data_file(f"faults/{source}"), name, on_progress=begun.append)
    assert not begun
    clean_folder()


@pytest.mark.parametrize("suffix", ["m3u8", "mpd", "ismv", "rm", "ogv", "ogg"])
def test_what_cannot_be_written_is_said_at_once(
    suffix: str, small_clip: Path, enhance: Callable[..., Path], clean_folder: Callable[..., None]
) -> None:
    with pytest.raises(OutputError, match=r"is not written: .*; use .mp4, .mkv, .mov or .webm"):
        enhance(small_clip, f"out.{suffix}")
    clean_folder()


@pytest.mark.parametrize(
    ("codec", "name", "words"),
    [
        ("utvideo", "out.mkv", "PyAV puts no utvideo into matroska; use .avi or .nut"),
        ("wmv2", "out.mkv", "PyAV puts no wmv2 into matroska; use .avi or .nut"),
        ("mpeg2video", "out.nut", "without the times of its first frames; use .mkv"),
    ],
)
def test_pairs_that_do_not_work_are_said_before_the_work(
    codec: str, name: str, words: str, small_clip: Path, enhance: Callable[..., Path], clean_folder: Callable[..., None]
) -> None:
    begun: list[Any] = []
    with pytest.raises(OutputError, match=words):
        enhance(small_clip, name, codec=codec, on_progress=begun.append)
    assert not begun
    clean_folder()


@pytest.mark.parametrize("name", ["out.avi", "out.nut"])
def test_the_containers_that_are_named_instead_take_it(
    name: str, small_clip: Path, enhance: Callable[..., Path]
) -> None:
    with av.open(str(enhance(small_clip, name, codec="utvideo"))) as container:
        assert container.streams.video[0].codec_context.name == "utvideo"


def test_a_list_of_formats_that_promises_too_much_is_not_believed(
    data_file: DataFile, enhance: Callable[..., Path]
) -> None:
    notes: list[str] = []  # libx265 lists formats with alpha that this build does not open
    enhance(
        data_file("faults/p4444.mov"),
        "out.mp4",
        codec="libx265",
        size="128x96",
        note=lambda note: notes.append(str(note)),
    )
    assert "alpha is left out: libx265 has none" in notes


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_iso_files_of_hevc_are_for_all_players_and_begin_with_their_index(
    suffix: str, small_clip: Path, enhance: Callable[..., Path]
) -> None:
    output = enhance(small_clip, f"out{suffix}", codec="libx265", size="128x96", preset="ultrafast")
    with av.open(str(output)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
    data = output.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_windows_media_is_not_coarse_by_default(small_clip: Path, enhance: Callable[..., Path]) -> None:
    fine, coarse = (enhance(small_clip, f"{n}.wmv", size="640x480", encoder_options=o) for n, o in (
        ("fine", {}), ("coarse", {"b": "200k"}),
    ))  # fmt: skip
    assert fine.stat().st_size > coarse.stat().st_size
