"""Videos as frames in memory, against PyAV's own reading of the same files."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from faulty_copies import NUM_FRAMES, make_source

import vsr
from vsr.errors import InputError
from vsr.frames import Matrix, Primaries, Range


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("clips") / "source.mkv")


def make_deep(path: Path, times: list[int]) -> Path:
    """10 bit frames of rising brightness, at uneven times in milliseconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p10le"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.color_range = 1
        for index, pts in enumerate(times):
            frame = av.VideoFrame(32, 16, "yuv420p10le")
            for plane, value in zip(frame.planes, (64 + 219 * index, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_frames_and_times_are_those_of_the_file(source: Path) -> None:
    with av.open(str(source)) as container:
        theirs = list(container.decode(video=0))
    with vsr.open_video(source) as video:
        mine = list(video)
        assert (video.info.width, video.info.height) == (64, 48)
        assert video.info.color.matrix is Matrix.BT709
    assert len(mine) == NUM_FRAMES
    assert [frame.pts for frame in mine] == [frame.pts for frame in theirs]
    assert all(frame.time_base == Fraction(1, 1000) for frame in mine)
    assert mine[3].pts_seconds == pytest.approx(0.12)
    assert mine[3].duration_seconds == pytest.approx(0.04)
    for a, b in zip(mine, theirs, strict=True):
        expected = b.to_ndarray(format="rgb24", src_colorspace="ITU709", interpolation="BICUBIC")
        assert a.data.dtype == np.uint8
        assert np.abs(a.data.astype(int) - expected).mean() < 2
    assert mine[0].color.is_rgb
    assert mine[0].color.range is Range.FULL
    assert mine[0].color.primaries is Primaries.BT709


def test_deep_video_is_uint16_over_the_full_range(tmp_path: Path) -> None:
    times = [0, 40, 130, 131, 500]
    with vsr.open_video(make_deep(tmp_path / "deep.mkv", times)) as video:
        frames = list(video)
    assert [frame.pts for frame in frames] == times
    for index, frame in enumerate(frames):
        assert frame.data.dtype == np.uint16
        assert np.abs(frame.data.astype(int) - 65535 * index / 4).max() <= 2
    assert frames[0].color.bit_depth == 16


def test_tensors_can_be_trained_with(source: Path) -> None:
    with vsr.open_video(source, output="torch") as video:
        frame = next(iter(video))
    assert isinstance(frame.data, torch.Tensor)
    assert frame.data.shape == (48, 64, 3)
    weight = torch.ones(1, requires_grad=True)
    (frame.data.float() * weight).sum().backward()
    assert weight.grad is not None


def test_a_video_begins_anew_with_each_iteration(source: Path) -> None:
    with vsr.open_video(source) as video:
        first = next(iter(video))
        whole = list(video)
        pairs = list(zip(video, video, strict=True))  # two at a time
    assert np.array_equal(first.data, whole[0].data)
    assert len(whole) == len(pairs) == NUM_FRAMES
    assert all(a.pts == b.pts for a, b in pairs)


def test_a_part_of_a_video(source: Path) -> None:
    with vsr.open_video(source, start_seconds=0.2, duration_seconds="1/5") as video:
        frames = list(video)
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    with vsr.open_video(source) as video:
        assert np.array_equal(list(video)[5].data, frames[0].data)


def test_closing_early_is_clean(source: Path) -> None:
    video = vsr.open_video(source)
    frames = iter(video)
    frame = next(frames)
    video.close()
    video.close()
    gc.collect()
    assert frame.data.shape == (48, 64, 3)
    with pytest.raises(InputError, match="was closed"):
        next(frames)
    with pytest.raises(InputError, match="was closed"):
        next(iter(video))


def test_what_is_no_video_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.mp4"):
        vsr.open_video(tmp_path / "missing.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mp4"):
        vsr.open_video(tmp_path / "text.mp4")


def test_images_are_a_video_too(tmp_path: Path) -> None:
    for index in range(3):
        with av.open(str(tmp_path / f"{index:02}.png"), "w", format="image2", options={"update": "1"}) as output:
            stream = output.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 8, 6, "rgb24"
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((6, 8, 3), 50 * index, np.uint8), "rgb24")))
            output.mux(stream.encode(None))
    with vsr.open_video(tmp_path / "%02d.png", framerate=10) as video:
        frames = list(video)
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0, 0.1, 0.2])
    assert [int(frame.data[0, 0, 0]) for frame in frames] == [0, 50, 100]
