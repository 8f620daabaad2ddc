"""Which videos count as compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

from vsr.jobs import plan
from vsr.jobs.compression import Compression, compression_of
from vsr.jobs.plan import Footage, choose_model
from vsr.media.read.reader import VideoReader
from vsr.models.cards import shipped_cards
from vsr.pipeline.loading import ModelOptions


@pytest.mark.parametrize(
    ("codec", "bits_per_pixel", "size", "is_strong"),
    [
        ("h264", 0.1, (640, 360), True),  # web video
        ("h264", 0.5, (640, 360), False),
        ("h264", 0.3, (320, 180), True),  # small frames need more bits for the same quality
        ("h264", 0.3, (1280, 720), False),
        ("mpeg2video", 0.3, (720, 576), True),  # television; old codecs need more
        ("hevc", 0.22, (640, 360), False),
        ("ffv1", 0.1, (640, 360), False),  # nothing is lost, however few bits it takes
        ("prores", 0.1, (640, 360), False),
        ("h264", None, (640, 360), False),
    ],
)
def test_codec_size_and_bits_decide(
    codec: str, bits_per_pixel: float | None, size: tuple[int, int], is_strong: bool
) -> None:
    assert Compression(codec, bits_per_pixel, size[0] * size[1]).is_strong is is_strong


def _frames() -> Iterator[av.VideoFrame]:
    noise = np.random.default_rng(1).integers(0, 256, (96, 128 + 12, 3), dtype=np.uint8)
    for index in range(12):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[:, index : index + 128]), "rgb24")
        frame.pts = index
        yield frame


def _write(path: Path, crf: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for frame in _frames():
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # whose header says the stream's bit rate, and whose does not
def test_bits_per_pixel_are_those_of_the_file(suffix: str, tmp_path: Path) -> None:
    for crf, is_strong in ((12, False), (50, True)):
        path = _write(tmp_path / f"{crf}{suffix}", crf)
        with VideoReader(path) as reader:
            found = compression_of(reader)
        with av.open(str(path)) as container:
            num_bytes = sum(packet.size for packet in container.demux())
        least = num_bytes * 8 / (12 * 128 * 96)  # the whole file is a little larger
        assert found.bits_per_pixel is not None and 0.9 * least < found.bits_per_pixel < 1.1 * least + 0.15
        assert found.is_strong is is_strong


STRONG = Compression("h264", 0.05, 320 * 180)
COMPRESSED = Footage(320, 180, compression=STRONG)


@pytest.mark.parametrize(("device", "name"), [("cpu", "video-real-fast"), ("cuda", "video-real")])
def test_auto_takes_networks_for_compressed_video(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "shipped_cards", lambda: {**shipped_cards(), "video-real": None})
    chosen, reason = choose_model(ModelOptions(), COMPRESSED, torch.device(device))
    assert chosen == name and reason.endswith("compressed: h264 of 0.05 bits a pixel")


def test_auto_takes_the_small_network_where_the_large_one_is_not_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {name: card for name, card in shipped_cards().items() if name != "video-real"}
    monkeypatch.setattr(plan, "shipped_cards", lambda: cards)
    assert choose_model(ModelOptions(), COMPRESSED, torch.device("cuda"))[0] == "video-real-fast"
    assert choose_model(ModelOptions(scale=2), COMPRESSED, torch.device("cuda"))[0] == "fast-x2"
