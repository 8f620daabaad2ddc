from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.filter import Graph

from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.errors import InputError
from vsr.media.av_frames import load_planes
from vsr.media.read.deinterlace import DeinterlaceMode, Deinterlacer
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import FramePosition, VideoReader

WIDTH, HEIGHT, NUM_FRAMES = 96, 64, 12


def frame_of_two_moments(index: int) -> np.ndarray:
    """A bright bar that moves 4 pixels between the fields of a frame: combed where nothing is done."""
    picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for field in (0, 1):
        left = 8 + (2 * index + field) * 3
        picture[field::2, left : left + 12] = 220
    return picture


def top_first(frame: av.VideoFrame) -> av.VideoFrame:
    """Flag a frame as one whose upper field is shown first, which PyAV cannot by itself."""
    graph = Graph()
    source = graph.add_buffer(width=WIDTH, height=HEIGHT, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", "tff"), graph.add("buffersink")).configure()
    graph.push(frame)
    flagged = graph.pull()
    assert isinstance(flagged, av.VideoFrame)
    return flagged


def make_interlaced(path: Path, num_frames: int = NUM_FRAMES) -> Path:
    with av.open(str(path), "w") as container:
        options = {"x264-params": "tff=1", "crf": "4", "preset": "ultrafast", "g": "20"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(frame_of_two_moments(index), "rgb24").reformat(
                threads=1, format="yuv444p"
            )
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(top_first(frame)))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame, "the clip is not what the test needs"
    return path


@pytest.fixture
def interlaced_clip(tmp_path: Path) -> Path:
    return make_interlaced(tmp_path / "interlaced.mkv")


def read(path: Path, mode: DeinterlaceMode) -> tuple[np.ndarray, list[int]]:
    with VideoReader(path, InputOptions(deinterlace=mode)) as reader:
        batches = [chunk.batch for chunk in reader.chunks(5) if chunk.batch is not None]
    luma = np.concatenate([b.planes[0].numpy() for b in batches])[:, 0].astype(int)
    return luma, [pts for b in batches for pts in b.pts]


def combing(luma: np.ndarray) -> float:
    """Mean difference of neighbouring lines, which belong to different moments while interlaced."""
    return float(np.abs(np.diff(luma, axis=1)).mean())


def test_flagged_video_is_deinterlaced_frame_for_frame(interlaced_clip: Path) -> None:
    raw, raw_pts = read(interlaced_clip, "off")
    luma, pts = read(interlaced_clip, "auto")
    assert len(luma) == NUM_FRAMES and pts == raw_pts
    assert combing(luma) < 0.3 * combing(raw)


def test_each_frame_shows_its_own_moment(interlaced_clip: Path) -> None:
    luma, _ = read(interlaced_clip, "auto")
    for index in range(1, NUM_FRAMES - 1):
        bright = np.flatnonzero(luma[index, HEIGHT // 2] > 130)
        assert abs(bright.min() - (8 + 6 * index)) <= 3


def test_at_the_double_rate_each_field_shows_its_own_moment(interlaced_clip: Path) -> None:
    raw, raw_pts = read(interlaced_clip, "off")
    luma, pts = read(interlaced_clip, "double")
    with VideoReader(interlaced_clip, InputOptions(deinterlace="double")) as reader:
        assert (reader.info.time_base, reader.info.average_rate) == (Fraction(1, 2000), 50)
    assert pts == [2 * raw_pts[0] + 40 * index for index in range(2 * NUM_FRAMES)]
    assert combing(luma) < 0.3 * combing(raw)
    for index in range(2, 2 * NUM_FRAMES - 2):
        bright = np.flatnonzero(luma[index, HEIGHT // 2] > 130)
        assert abs(bright.min() - (8 + 3 * index)) <= 2


@pytest.mark.parametrize(
    ("start", "duration", "fields"),
    [
        ("0.2", "0.2", range(10, 20)),
        ("0.21", "0.2", range(11, 21)),  # between the fields of a frame, as all of these
        ("0.22", "0.2", range(11, 21)),
        ("0.21", "0.01", range(0)),
        ("0.21", "0.02", range(11, 12)),
        ("0.2", "0.02", range(10, 11)),
        ("0", "0.1", range(5)),
        ("0.46", "1", range(23, 24)),  # the last field of the file
        ("0.4", "1", range(20, 24)),
    ],
)
def test_a_part_at_the_double_rate_has_the_frames_of_the_whole(
    start: str, duration: str, fields: range, interlaced_clip: Path
) -> None:
    whole, whole_pts = read(interlaced_clip, "double")
    options = InputOptions(start_seconds=Fraction(start), duration_seconds=Fraction(duration), deinterlace="double")
    if not fields:
        with pytest.raises(InputError, match="no frame at or after"):
            VideoReader(interlaced_clip, options)
        return
    with VideoReader(interlaced_clip, options) as reader:
        batches = [chunk.batch for chunk in reader.chunks(3) if chunk.batch is not None]
    shift = round(Fraction(start) * 2000)
    assert [pts + shift for batch in batches for pts in batch.pts] == whole_pts[fields.start : fields.stop]
    luma = np.concatenate([batch.planes[0].numpy() for batch in batches])[:, 0].astype(int)
    assert np.array_equal(luma, whole[fields.start : fields.stop])


def test_a_frame_made_of_a_field_is_found_again_by_a_search(tmp_path: Path) -> None:
    path = make_interlaced(tmp_path / "long.mkv", 90)
    options = InputOptions(start_seconds=Fraction("0.1"), deinterlace="double")
    with VideoReader(path, options) as reader:
        positions = [FramePosition.of_last(c.batch) for c in reader.chunks(1) if c.batch is not None]
    for number, search in [(0, True), (140, True), (140, False)]:
        with VideoReader(path, options) as reader:
            assert reader.skip_through(positions[number], search=search)
            rest = [FramePosition.of_last(c.batch) for c in reader.chunks(1) if c.batch is not None]
        assert rest == positions[number + 1 :]


def test_images_too_small_to_deinterlace_keep_their_times_at_the_double_rate() -> None:
    frame = av.VideoFrame(4, 4, "yuv420p")
    frame.pts, frame.duration, frame.time_base = 7, 1, Fraction(1, 25)
    (out,) = Deinterlacer(every_frame=True, every_field=True).push(frame)
    assert (out.pts, out.duration, out.time_base) == (14, 2, Fraction(1, 50))


def test_progressive_video_is_left_alone(data_folder: Path) -> None:
    clip = data_folder / "clips" / "sample_with_chapters-0b2c77bc.mkv"
    with VideoReader(clip) as reader:
        assert not reader.is_deinterlaced
    (raw, _), (auto, _) = read(clip, "off"), read(clip, "auto")
    assert np.array_equal(raw, auto)


@pytest.mark.parametrize("size", [(64, 4), (4, 64), (2, 2)])
def test_what_is_too_small_to_have_fields_stays_as_it_is(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "small.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), 60 * index, np.uint8), "rgb24")
            container.mux(stream.encode(frame.reformat(threads=1, format="yuv420p")))
        container.mux(stream.encode(None))
    (luma, pts), (raw, raw_pts) = read(path, "on"), read(path, "off")
    assert len(pts) == 3 and pts == raw_pts
    assert (luma == raw).all()


@pytest.mark.parametrize("pixel_format", ["rgb24", "rgba", "gbrp", "gray", "gray10le", "nv12", "yuva444p12le"])
def test_deinterlacing_keeps_the_pixel_format(pixel_format: str) -> None:
    """bwdif does not take all of them, and must not turn RGB into Y'CbCr."""
    picture = np.full((32, 48, 3), (200, 40, 90), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(threads=1, format=pixel_format)
    frame.pts, frame.time_base = 7, Fraction(1, 25)
    deinterlacer = Deinterlacer(every_frame=True)
    (out,) = [*deinterlacer.push(frame), *deinterlacer.flush()]
    assert (out.format.name, out.pts, out.time_base) == (pixel_format, 7, Fraction(1, 25))
    before, after = (allocate_planes(FORMATS[pixel_format], 1, 32, 48) for _ in range(2))
    load_planes(frame, FORMATS[pixel_format], before, 0)
    load_planes(out, FORMATS[pixel_format], after, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
