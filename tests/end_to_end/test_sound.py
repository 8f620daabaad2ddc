"""Sound that a container cannot hold as it is: what it becomes, and that it is all there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vsr
from vsr.media.formats import find_container
from vsr.media.write.audio import choose_audio_encoder, fit_encoder

DataFile = Callable[[str], Path]


@pytest.fixture
def sound_of_output(tiny_model: Path, tmp_path: Path) -> Callable[..., tuple[str, str, int, float]]:
    """Upscales a file, and gives codec, layout, rate and seconds of the output's sound."""

    def call(source: Path, name: str, **options: Any) -> tuple[str, str, int, float]:
        model = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu"}
        vsr.enhance(source, tmp_path / name, **model, **options)
        with av.open(str(tmp_path / name)) as container:
            context = container.streams.audio[0].codec_context
            samples = sum(frame.samples for frame in container.decode(audio=0))
            return context.name, context.layout.name, context.sample_rate, samples / context.sample_rate

    return call


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("g_pcm_alaw.mov", "out.mp4", ("pcm_s16le", "1 channels", 48000)),  # PCM stays without loss
        ("g_pcm_alaw.mov", "out.avi", ("pcm_alaw", "1 channels", 48000)),
        ("g_adpcm_ms.avi", "out.mkv", ("flac", "mono", 48000)),  # nearly as large, and without loss
        ("base.mp4", "out.mxf", ("pcm_s16le", "1 channels", 48000)),  # which takes no other rate
        ("ac351.mkv", "out.webm", ("opus", "5.1", 48000)),  # from 5.1(side), which Opus does not know
        ("amix.ts", "out.webm", ("opus", "stereo", 48000)),  # which turns from stereo to 5.1
    ],
)
def test_sound_becomes_what_the_container_takes(
    source: str,
    name: str,
    expected: tuple[str, str, int],
    data_file: DataFile,
    sound_of_output: Callable[..., tuple[str, str, int, float]],
) -> None:
    path = data_file(f"faults/{source}")
    *kind, seconds = sound_of_output(path, name)
    assert tuple(kind) == expected
    with av.open(str(path)) as container:
        length = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    assert abs(seconds - length) < 0.1


def test_what_pyav_does_not_copy_into_matroska_is_named_as_that(
    data_file: DataFile, sound_of_output: Callable[..., tuple[str, str, int, float]]
) -> None:
    notes: list[str] = []
    sound_of_output(data_file("faults/g_pcm_alaw.mov"), "out.mkv", note=lambda note: notes.append(str(note)))
    assert [note for note in notes if "transcoded to pcm_s16le: PyAV does not copy it into matroska" in note]


def _with_sound(path: Path, codec: str, rate: int, layout: str) -> Path:
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = output.add_stream(codec, rate=rate)
        audio.codec_context.layout, audio.codec_context.bit_rate = layout, 128_000
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), 40 + index, np.uint8), "yuv420p")
            frame.pts = index
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        channels = av.AudioLayout(layout).nb_channels
        samples = np.random.default_rng(0).integers(-3000, 3000, (1, rate * channels)).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(samples, "s16", layout)
        sound.sample_rate, sound.pts = rate, 0
        output.mux(audio.encode(sound))
        output.mux(audio.encode(None))
    return path


def test_a_rate_that_the_encoder_lacks_is_lowered_and_named(
    sound_of_output: Callable[..., tuple[str, str, int, float]], tmp_path: Path
) -> None:
    source, notes = _with_sound(tmp_path / "in.mkv", "flac", 192000, "stereo"), []
    found = sound_of_output(source, "out.mp4", audio="aac", note=lambda note: notes.append(str(note)))
    assert found[:3] == ("aac", "stereo", 96000)
    assert any("192000 Hz becomes 96000 Hz" in note for note in notes)


def test_the_bit_rate_of_transcoded_sound_can_be_set(
    sound_of_output: Callable[..., tuple[str, str, int, float]], tmp_path: Path
) -> None:
    source = _with_sound(tmp_path / "in.mkv", "flac", 48000, "stereo")
    sizes = []
    for rate in (32_000, 256_000):
        sound_of_output(source, f"{rate}.mp4", audio="aac", audio_bitrate=rate)
        with av.open(str(tmp_path / f"{rate}.mp4")) as container:
            sizes.append(sum(packet.size for packet in container.demux(audio=0)))
    assert sizes[0] < 8000 < sizes[1]


def test_channels_that_the_usual_encoder_lacks_are_kept_by_another(
    sound_of_output: Callable[..., tuple[str, str, int, float]], tmp_path: Path
) -> None:
    source = _with_sound(tmp_path / "in.mkv", "libopus", 48000, "5.1")
    assert sound_of_output(source, "out.avi")[:3] == ("ac3", "5.1(side)", 48000)


def test_sound_of_which_a_damaged_header_says_nothing_fits_no_encoder() -> None:
    source = av.CodecContext.create("pcm_u8", "r")
    assert isinstance(source, av.AudioCodecContext)
    assert choose_audio_encoder(find_container("matroska"), source) is None
    assert fit_encoder("flac", source) is None


def test_sound_that_the_encoder_asked_for_does_not_take_is_left_out_and_named(
    data_file: DataFile, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsr.media.write.stream_plan.fit_encoder", lambda *given: None)
    model: dict[str, Any] = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu"}
    notes: list[str] = []
    options = {"audio": "aac", "duration_seconds": 0.2, "note": notes.append}
    vsr.enhance(data_file("faults/base.mp4"), tmp_path / "out.mkv", **options, **model)
    assert [note for note in notes if "left out: aac takes nothing like it" in note]
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_sound_whose_decoder_gives_none_of_the_first_packets_is_in_time(
    name: str, sound_of_output: Callable[..., tuple[str, str, int, float]], tmp_path: Path
) -> None:
    source = _with_sound(tmp_path / "in.asf", "wmav2", 44100, "stereo")
    sound_of_output(source, name)
    codes = {difference.code for difference in vsr.verify(source, tmp_path / name).differences}
    assert "stream-codec" in codes and "stream-times" not in codes
    firsts = []
    for path in (source, tmp_path / name):
        with av.open(str(path)) as container:
            frame = next(container.decode(audio=0))
            firsts.append(float(frame.pts * frame.time_base))  # type: ignore[operator]
    assert firsts[0] > 0.05 and abs(firsts[1] - firsts[0]) < 0.03
