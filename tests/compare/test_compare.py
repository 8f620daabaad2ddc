"""Files beside each other in one: what a viewer of the output gets to see and hear, read back by PyAV alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from vsr.compare.compare import write_comparison
from vsr.errors import InputError, OptionError, OutputError, VerificationError, VsrError
from vsr.media.write.options import EncodingOptions

LOSSLESS = EncodingOptions(codec="libx264", preset="ultrafast", encoder_options={"qp": "0"})
SIZE = (64, 48)
GROUND = 24  # of a label's box, RGB


def _write(
    path: Path,
    *,
    seed: int = 0,
    pts: Sequence[int] = tuple(range(5)),
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = SIZE,
    pix_fmt: str = "yuv420p",
    color: tuple[int, int] = (6, 1),
    aspect: Fraction | None = None,
    rotation: int = 0,
    sound: bool = False,
    smooth: bool = False,
) -> Path:
    """A losslessly coded clip of noise, or of a smooth pattern, by seed and frame. color: matrix and range."""
    with av.open(str(path), "w") as output:
        codec = "libx264" if path.suffix == ".mp4" else "ffv1"
        stream = output.add_stream(codec, rate=25, width=size[0], height=size[1], pix_fmt=pix_fmt)
        stream.options = {"qp": "0", "preset": "ultrafast"} if codec == "libx264" else {}
        context = stream.codec_context
        context.time_base = stream.time_base = time_base
        context.colorspace, context.color_range = color
        if aspect:
            context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        audio = output.add_stream("aac", rate=48000, layout="stereo") if sound else None
        for index, ticks in enumerate(pts):
            image = _smooth(seed, size) if smooth else _noise(seed, index, size)
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                format=pix_fmt, dst_colorspace=color[0], dst_color_range=color[1], threads=1
            )
            frame.pts, frame.time_base = ticks, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 9600), np.int16), "s16", "stereo")
            samples.sample_rate, samples.pts, samples.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(audio.encode(samples))
            output.mux(audio.encode(None))
    return path


def _noise(seed: int, index: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng((seed, index)).integers(30, 220, (size[1], size[0], 3)).astype(np.uint8)


def _smooth(seed: int, size: tuple[int, int]) -> np.ndarray:
    corners = np.random.default_rng(seed).integers(60, 200, (3, 3, 3)).astype(np.uint8)
    return cv2.resize(corners, size, interpolation=cv2.INTER_CUBIC)


def _planes(path: Path) -> tuple[list[list[np.ndarray]], list[Fraction]]:
    """The planes of every frame as they are in a file, and when each is to be shown, in seconds."""
    frames, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append([_samples(plane) for plane in frame.planes])
            times.append(frame.pts * frame.time_base)
    return frames, times


def _samples(plane: Any) -> np.ndarray:
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].copy()


def _rgb(path: Path, index: int = 0) -> np.ndarray:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))[index].to_ndarray(format="rgb24").astype(int)


def _is(found: list[np.ndarray], expected: list[np.ndarray], columns: slice, own: slice = slice(None)) -> bool:
    """Whether the luma columns of a 4:2:0 frame are those of another, chroma included."""
    half, own_half = (
        slice(None if s.start is None else s.start // 2, None if s.stop is None else s.stop // 2)
        for s in (columns, own)
    )
    return np.array_equal(found[0][:, columns], expected[0][:, own]) and all(
        np.array_equal(found[i][:, half], expected[i][:, own_half]) for i in (1, 2)
    )


def _side(sources: Sequence[Path], output: Path, **values: Any) -> tuple[list[list[np.ndarray]], list[Fraction]]:
    values = {"labels": [""] * len(sources), "encoding": LOSSLESS, **values}
    done = write_comparison(sources, output, **values)
    frames, times = _planes(output)
    assert done.num_frames == len(frames)
    assert (done.height, done.width) == frames[0][0].shape
    return frames, times


# -- side by side --------------------------------------------------------------------------------------


def test_each_part_is_its_source_sample_for_sample(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{name}.mp4", seed=seed) for seed, name in enumerate("abc")]
    frames, times = _side(paths, tmp_path / "out.mp4")
    sources = [_planes(path)[0] for path in paths]
    assert times == [Fraction(i, 25) for i in range(5)]
    for index, frame in enumerate(frames):
        assert frame[0].shape == (48, 3 * 64)
        for place, source in enumerate(sources):
            assert _is(frame, source[index], slice(64 * place, 64 * place + 64))
    assert not _is(frames[0], sources[1][0], slice(0, 64))  # the images differ, so that this shows something


def test_frames_are_aligned_by_their_time(tmp_path: Path) -> None:
    """Uneven steps and other clocks: a source without a frame at a time shows its last one."""
    first = _write(tmp_path / "a.mp4", seed=1, pts=(2, 3, 6))
    second = _write(tmp_path / "b.mkv", seed=2, pts=(80, 160, 200, 240, 280), time_base=Fraction(1, 1000))
    frames, times = _side([first, second], tmp_path / "out.mp4")
    assert times == [Fraction(t, 100) for t in (8, 12, 16, 20, 24, 28)]
    (a, _), (b, _) = _planes(first), _planes(second)
    shown = [(0, 0), (1, 0), (1, 1), (1, 2), (2, 3), (2, 4)]
    for frame, (left, right) in zip(frames, shown, strict=True):
        assert _is(frame, a[left], slice(0, 64)) and _is(frame, b[right], slice(64, 128))


def test_clocks_that_round_share_their_frames(tmp_path: Path) -> None:
    exact = _write(tmp_path / "a.mp4", pts=range(8), time_base=Fraction(1001, 24000))
    rounded = [round(i * 1001 / 24) for i in range(8)]
    matroska = _write(tmp_path / "b.mkv", pts=rounded, time_base=Fraction(1, 1000))
    frames, times = _side([exact, matroska], tmp_path / "out.mp4")
    assert times == [i * Fraction(1001, 24000) for i in range(8)]
    _, times = _side([matroska, exact], tmp_path / "out.mkv", encoding=EncodingOptions(codec="ffv1"))
    assert times == [Fraction(t, 1000) for t in rounded]
    assert len(frames) == 8


def test_a_source_that_starts_late_is_black_until_then(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.mp4", pts=range(4))
    late = _write(tmp_path / "b.mp4", seed=1, pts=(2, 3))
    notes: list[str] = []
    frames, _ = _side([first, late], tmp_path / "out.mp4", note=notes.append)
    b, _ = _planes(late)
    for frame in frames[:2]:
        assert (frame[0][:, 64:] == 16).all() and (frame[1][:, 32:] == 128).all()
    assert _is(frames[2], b[0], slice(64, 128)) and _is(frames[3], b[1], slice(64, 128))
    assert f"{late}: starts 0.080 s later; black until then" in notes


def test_another_size_goes_to_the_largest_height(tmp_path: Path) -> None:
    small = _write(tmp_path / "a.mp4", seed=1, size=(31, 24), smooth=True, pix_fmt="yuv444p")
    large = _write(tmp_path / "b.mp4", seed=1, size=(62, 48), smooth=True, pix_fmt="yuv444p")
    notes: list[str] = []
    frames, _ = _side([small, large], tmp_path / "out.mp4", note=notes.append)
    assert frames[0][0].shape == (48, 124)
    assert all(np.array_equal(f[:, 62:], p) for f, p in zip(frames[0], _planes(large)[0][0], strict=True))
    rgb = _rgb(tmp_path / "out.mp4")
    assert abs(rgb[4:-4, 4:58] - rgb[4:-4, 66:120]).max() <= 8  # one pattern, drawn at two sizes
    assert notes == [f"{small}: scaled from 31x24 to 62x48 (bicubic)"]


def test_odd_sides_keep_every_column(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{i}.mkv", seed=i, size=(63, 47)) for i in range(2)]
    frames, _ = _side(paths, tmp_path / "out.mp4")
    assert frames[0][0].shape == (48, 128)
    for index, path in enumerate(paths):
        source = _planes(path)[0][0]
        assert np.array_equal(frames[0][0][:47, 64 * index : 64 * index + 63], source[0])
        assert np.array_equal(frames[0][1][:, 32 * index : 32 * index + 32], source[1])


def test_colour_is_converted_by_each_source_s_own_matrix_and_range(tmp_path: Path) -> None:
    """One image, coded in three ways, looks the same three times; the output is tagged as the first."""
    paths = [
        _write(tmp_path / f"{i}.mp4", smooth=True, pix_fmt="yuv444p", color=color)
        for i, color in enumerate(((1, 1), (6, 1), (1, 2)))
    ]
    coded = [_planes(path)[0][0] for path in paths]
    assert all(abs(c[0].astype(int) - coded[0][0]).max() > 3 for c in coded[1:])  # else this shows nothing
    frames, _ = _side(paths, tmp_path / "out.mp4")
    for place in range(3):
        for found, expected in zip(frames[0], coded[0], strict=True):
            difference = found[:, 64 * place : 64 * place + 64].astype(int) - expected
            assert abs(difference).max() <= (2 if place else 0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)


def test_a_gray_source_does_not_take_the_colour_from_the_other(tmp_path: Path) -> None:
    gray = _write(tmp_path / "a.mkv", seed=1, pix_fmt="gray")
    coloured = _write(tmp_path / "b.mp4", seed=2)
    frames, _ = _side([gray, coloured], tmp_path / "out.mp4")
    assert _is(frames[0], _planes(coloured)[0][0], slice(64, 128))
    assert np.array_equal(frames[0][0][:, :64], _planes(gray)[0][0][0])
    assert (frames[0][1][:, :31] == 128).all()


def test_what_the_output_cannot_hold_is_said(tmp_path: Path) -> None:
    paths = [_write(tmp_path / "a.mp4"), _write(tmp_path / "b.mkv", pix_fmt="yuv420p10le")]
    paths.append(_write(tmp_path / "c.mkv", pix_fmt="yuva444p"))
    notes: list[str] = []
    _side(paths, tmp_path / "out.mp4", note=notes.append)
    assert notes == [
        f"{paths[1]}: 10 bit samples become 8 bit (libx264, yuv420p)",
        f"{paths[2]}: alpha is left out",
        f"{paths[2]}: colour is stored at lower resolution: yuva444p becomes yuv420p",
    ]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_what_is_stored_on_its_side_is_shown_upright(degrees: int, tmp_path: Path) -> None:
    """By FFmpeg's rule, the angle of a display matrix turns the image counter-clockwise."""
    upright = _smooth(5, SIZE)
    stored = _write(tmp_path / "b.mp4", seed=5, smooth=True, pix_fmt="yuv444p", rotation=degrees)
    with av.open(str(stored)) as container:
        turn = next(container.decode(video=0)).rotation
    assert turn % 360 == degrees
    expected = np.rot90(upright, turn // 90).astype(int)
    other = _write(tmp_path / "a.mp4", size=expected.shape[1::-1], pix_fmt="yuv444p")
    _side([other, stored], tmp_path / "out.mp4")
    assert abs(_rgb(tmp_path / "out.mp4")[:, expected.shape[1] :] - expected).max() <= 6
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


def test_pixels_that_are_not_square_are_shown_as_they_should_be(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{i}.mp4", smooth=True, aspect=aspect) for i, aspect in enumerate((None, Fraction(2)))]
    frames, _ = _side(paths, tmp_path / "out.mp4")
    assert frames[0][0].shape == (48, 64 + 128)


def test_sound_is_that_of_the_first(tmp_path: Path) -> None:
    silent, loud = _write(tmp_path / "a.mp4"), _write(tmp_path / "b.mp4", sound=True)

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(p) for p in container.demux() if p.size and p.stream.type == "audio"]

    _side([loud, silent], tmp_path / "loud.mp4")
    assert packets(tmp_path / "loud.mp4") == packets(loud) != []
    _side([silent, loud], tmp_path / "silent.mp4")
    assert packets(tmp_path / "silent.mp4") == []


# -- labels, and the line ------------------------------------------------------------------------------


def test_labels(tmp_path: Path) -> None:
    """The files' names in the upper corner of each, and nothing changed elsewhere."""
    size = (320, 96)
    paths = [_write(tmp_path / f"{name}.mp4", seed=3, size=size, pix_fmt="yuv444p") for name in ("one", "other_name")]
    write_comparison(paths, tmp_path / "names.mp4", encoding=LOSSLESS)
    write_comparison(paths, tmp_path / "given.mp4", labels=["one.mp4", ""], encoding=LOSSLESS)
    plain, _ = _side(paths, tmp_path / "plain.mp4")
    names, given = _planes(tmp_path / "names.mp4")[0], _planes(tmp_path / "given.mp4")[0]
    changed = (names[0][0] != plain[0][0]).nonzero()
    assert changed[0].max() < 32
    left, right = changed[1][changed[1] < 320], changed[1][changed[1] >= 320] - 320
    assert 40 < left.max() < right.max() < 200 and min(left.min(), right.min()) < 4  # the second name is longer
    corner = _rgb(tmp_path / "names.mp4")[:24, : left.max()]
    assert corner.max() > 240 and abs(np.median(corner) - GROUND) <= 2  # white letters on a dark ground
    assert np.array_equal(given[4][0][:, :320], names[4][0][:, :320])
    assert np.array_equal(given[4][0][:, 320:], plain[4][0][:, 320:])


def test_names_that_are_alike_come_with_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "out.mp4" for folder in ("fast", "nano")]
    for path in paths:
        path.parent.mkdir()
        _write(path, size=(320, 96))
    write_comparison(paths, tmp_path / "a.mp4", encoding=LOSSLESS)
    write_comparison(paths, tmp_path / "b.mp4", labels=["fast/out.mp4", "nano/out.mp4"], encoding=LOSSLESS)
    assert all(
        np.array_equal(a[0], b[0])
        for a, b in zip(_planes(tmp_path / "a.mp4")[0], _planes(tmp_path / "b.mp4")[0], strict=True)
    )


def test_split_has_the_first_left_of_a_moving_line_and_the_second_right_of_it(tmp_path: Path) -> None:
    pts = range(0, 50, 5)
    paths = [_write(tmp_path / f"{i}.mp4", seed=i, pts=pts) for i in range(2)]
    frames, times = _side(paths, tmp_path / "out.mp4", layout="split")
    sources = [_planes(path)[0] for path in paths]
    lines = []
    for frame, first, second in zip(frames, *sources, strict=True):
        assert frame[0].shape == (48, 64)
        line = (frame[0] == 235).all(0).nonzero()[0]
        assert len(line) == 2 and line[1] == line[0] + 1
        lines.append(int(line[0]))
        assert _is(frame, first, slice(0, lines[-1]), slice(0, lines[-1]))
        assert _is(frame, second, slice(lines[-1] + 2, 64), slice(lines[-1] + 2, 64))
    assert times == [Fraction(t, 25) for t in pts]
    assert lines[0] == 30 and lines == sorted(lines) and lines[-1] > 55  # from the middle on to the right


def test_split_labels_both(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{i}.mp4", size=(320, 96)) for i in range(2)]
    write_comparison(paths, tmp_path / "out.mp4", layout="split", encoding=LOSSLESS)
    plain, _ = _side(paths, tmp_path / "plain.mp4", layout="split")
    columns = (_planes(tmp_path / "out.mp4")[0][0][0] != plain[0][0]).any(0).nonzero()[0]
    assert columns.min() < 4 and columns.max() > 316 and not ((columns > 100) & (columns < 220)).any()


# -- images ------------------------------------------------------------------------------------------


def test_images(tmp_path: Path) -> None:
    images = {"a.png": _noise(0, 0, (24, 16)), "b.png": _noise(1, 0, (40, 16)), "c.png": _noise(2, 0, (24, 16))}
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / name), image)
    paths = [tmp_path / name for name in images]
    done = write_comparison(paths, tmp_path / "out.png", labels=["", "", ""])
    assert (done.width, done.height, done.num_frames) == (88, 16, 1)
    assert np.array_equal(cv2.imread(str(tmp_path / "out.png")), np.hstack(list(images.values())))
    write_comparison([paths[0], paths[2]], tmp_path / "split.png", labels=["", ""], layout="split")
    found = cv2.imread(str(tmp_path / "split.png"))
    assert np.array_equal(found[:, :11], images["a.png"][:, :11]) and (found[:, 11:13] == 255).all()
    assert np.array_equal(found[:, 13:], images["c.png"][:, 13:])


def test_images_of_16_bit_stay_so(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (16, 24, 3)).astype(np.uint16)
    flat = np.full((8, 12), 200, np.uint8)  # gray, and smaller
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    cv2.imwrite(str(tmp_path / "b.png"), flat)
    notes: list[str] = []
    write_comparison([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out.png", labels=["", ""], note=notes.append)
    found = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(found[:, :24], deep) and (found[:, 24:] == 200 * 257).all()
    assert notes == [f"{tmp_path / 'b.png'}: scaled from 12x8 to 24x16 (bicubic)"]


# -- what is refused -----------------------------------------------------------------------------------


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    a, b, wide = (_write(tmp_path / n, size=s) for n, s in (("a.mp4", SIZE), ("b.mp4", SIZE), ("wide.mp4", (96, 48))))
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    out = tmp_path / "out.mp4"
    cases: list[tuple[type[VsrError], str, list[Path], Path, dict[str, Any]]] = [
        (OptionError, "two files or more", [a], out, {}),
        (OptionError, "a line parts two files, not 3", [a, b, a], out, {"layout": "split"}),
        (OptionError, "one for each of the 2 files", [a, b], out, {"labels": ["x"]}),
        (OptionError, "videos in a video, or images in an image", [a, tmp_path / "p.png"], out, {}),
        (OptionError, "videos in a video, or images in an image", [a, b], tmp_path / "out.png", {}),
        (OptionError, r"wide\.mp4: is 96x48 beside 64x48", [a, wide], out, {"layout": "split"}),
        (OptionError, "no such encoder", [a, b], out, {"encoding": EncodingOptions(codec="nonsense")}),
        (InputError, "no such file", [a, tmp_path / "none.mp4"], out, {}),
        (InputError, r"broken\.mp4: not a media file", [a, tmp_path / "broken.mp4"], out, {}),
        (OutputError, "exists already", [a, b], wide, {}),
        (OutputError, "is the input itself", [a, b], b, {"overwrite": True}),
        (OutputError, "the folder .* does not exist", [a, b], tmp_path / "none" / "out.mp4", {}),
    ]
    for error, words, sources, output, options in cases:
        with pytest.raises(error, match=words):
            write_comparison(sources, output, **options)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [_write(tmp_path / f"{i}.mp4", seed=i) for i in range(2)]
    from vsr.compare.canvas import Canvas

    compose, calls = Canvas.compose, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise VerificationError("made up")
        return compose(*args, **kwargs)

    monkeypatch.setattr(Canvas, "compose", failing)
    with pytest.raises(VerificationError, match="made up"):
        write_comparison(paths, tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "1.mp4"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from vsr.cli import main

    paths = [_write(tmp_path / f"{i}.mp4", seed=i) for i in range(2)]

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vsr", "compare", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capfd.readouterr().err

    out = tmp_path / "out.mp4"
    code, err = run(*paths, out, "--label", "before", "--label", "after", "-c:v", "libx264", "-crf", 0)
    assert (code, err.splitlines()[-1]) == (0, f"vsr: {out}: 5 frames at 128x48")
    assert run(*paths, out) == (3, f"vsr: {out}: exists already; -y overwrites it\n")
    code, err = run(*paths, out, "-y", "--layout", "split", "--quiet")
    assert (code, err) == (0, "") and _planes(out)[0][0][0].shape == (48, 64)
