from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import pytest
import torch

from vsr.backends.select import Place
from vsr.color.pixel_formats import FORMATS
from vsr.errors import OptionError
from vsr.frames import Range
from vsr.jobs.encoding import (
    Encoding,
    _choose_pixel_format,
    _encoder_options,
    _loss,
    beside_network,
    check_encoder_size,
    suited_to_size,
)
from vsr.jobs.source import open_source
from vsr.media.endpoints import File
from vsr.media.formats import find_container, find_encoder
from vsr.media.read.options import InputOptions
from vsr.media.write.options import EncodingOptions


@pytest.mark.parametrize(
    ("source", "offered", "chosen"),
    [
        ("yuv420p", ("yuv444p", "yuv420p", "yuv420p10le"), "yuv420p"),
        ("yuv420p10le", ("yuv420p", "yuv444p", "yuv420p10le"), "yuv420p10le"),
        ("yuv420p12le", ("yuv420p", "yuv420p10le"), "yuv420p10le"),
        ("yuv422p", ("yuv420p", "yuv444p"), "yuv444p"),
        ("nv12", ("yuv420p", "nv12"), "yuv420p"),
        ("p010le", ("yuv420p", "yuv420p10le"), "yuv420p10le"),
        ("gray", ("yuv420p", "gray"), "gray"),
        ("gray", ("yuv420p", "yuv444p"), "yuv420p"),
        ("gbrp", ("yuv420p", "yuv444p"), "yuv444p"),
        ("rgba", ("yuv444p", "yuva444p"), "yuva444p"),
        ("yuvj420p", ("yuvj420p", "yuv420p"), "yuv420p"),
    ],
)
def test_the_encoder_gets_the_format_that_loses_least(source: str, offered: tuple[str, ...], chosen: str) -> None:
    color_range = Range.FULL if "j" in source else Range.LIMITED
    assert min(offered, key=lambda name: _loss(FORMATS[source], FORMATS[name], color_range)) == chosen


# -- encoders of NVIDIA GPUs, which FFmpeg knows also where there is no GPU --------------------------------

nvenc = pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])


@pytest.fixture(autouse=True)
def _ffmpeg_has_nvenc(request: pytest.FixtureRequest) -> None:
    codec = getattr(request.node, "callspec", None) and request.node.callspec.params.get("codec")
    if codec and codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg is built without {codec}")


@nvenc
def test_quality_means_the_same_to_nvenc(codec: str) -> None:
    by_default = _encoder_options(find_encoder(codec), EncodingOptions())
    assert by_default["rc"] == "vbr" and by_default["b"] == "0" and 15 < float(by_default["cq"]) < 30
    assert _encoder_options(find_encoder(codec), EncodingOptions(crf=31.5)) == by_default | {"cq": "31.5"}
    assert _encoder_options(find_encoder(codec), EncodingOptions(encoder_options={"b": "8M"})) == {"b": "8M"}
    with pytest.raises(OptionError, match=r"1 to 51.*lossless"):
        _encoder_options(find_encoder(codec), EncodingOptions(crf=0))


@nvenc
def test_presets_of_nvenc_are_its_own(codec: str) -> None:
    assert _encoder_options(find_encoder(codec), EncodingOptions(preset="p7"))["preset"] == "p7"
    with pytest.raises(OptionError, match=r"`preset=\"veryfast\"`: .* has .*p1, p2"):
        _encoder_options(find_encoder(codec), EncodingOptions(preset="veryfast"))


def test_presets_that_are_numbers_are_left_to_the_encoder() -> None:
    assert _encoder_options(find_encoder("libsvtav1"), EncodingOptions(preset="8"))["preset"] == "8"


@pytest.mark.parametrize(
    ("codec", "source", "chosen"),
    [
        ("h264_nvenc", "yuv420p", "yuv420p"),
        ("h264_nvenc", "nv12", "yuv420p"),
        ("h264_nvenc", "yuv420p10le", "yuv420p"),
        ("hevc_nvenc", "yuv420p10le", "p010le"),
        ("hevc_nvenc", "yuv420p12le", "p010le"),
        ("hevc_nvenc", "yuv444p", "yuv444p"),
        ("av1_nvenc", "yuv420p10le", "p010le"),
        ("av1_nvenc", "yuv444p", "yuv420p"),
    ],
)
def test_nvenc_gets_what_all_its_generations_take(codec: str, source: str, chosen: str) -> None:
    info: Any = SimpleNamespace(pixel_format=FORMATS[source], color=SimpleNamespace(range=Range.LIMITED))
    assert _choose_pixel_format(find_encoder(codec), find_container("mp4"), info, None) == chosen
    assert _choose_pixel_format(find_encoder(codec), find_container("mp4"), info, "nv12") == "nv12"


@pytest.mark.parametrize(
    ("codec", "size", "instead"),
    [
        ("h264_nvenc", (4096, 4096), ""),
        ("h264_nvenc", (5120, 2880), "hevc_nvenc"),
        ("h264_nvenc", (2160, 4098), "hevc_nvenc"),
        ("h264_nvenc", (8194, 64), "libx264"),
        ("hevc_nvenc", (7680, 4320), ""),
        ("hevc_nvenc", (8194, 64), "libx265"),
        ("av1_nvenc", (8194, 64), "libsvtav1"),
        ("libx264", (16384, 8192), ""),
    ],
)
def test_frames_too_large_for_a_gpu_are_refused_with_an_encoder_that_takes_them(
    codec: str, size: tuple[int, int], instead: str
) -> None:
    if not instead:
        check_encoder_size(codec, *size)
        return
    with pytest.raises(OptionError, match=rf'`codec="{codec}"`: .*{size[0]}x{size[1]}; use `codec="{instead}"`'):
        check_encoder_size(codec, *size)


def test_an_encoder_of_a_gpu_takes_the_one_that_runs_the_network() -> None:
    def gpu(device: str, codec: str | None = "hevc_nvenc", **options: str) -> str | None:
        asked = EncodingOptions(codec=codec, encoder_options=options)
        return beside_network(asked, torch.device(device)).encoder_options.get("gpu")

    assert (gpu("cuda:1"), gpu("cuda:0"), gpu("cuda"), gpu("cpu")) == ("1", "0", "0", None)
    assert gpu("cuda:1", gpu="2") == "2"
    assert gpu("cuda:1", codec="libx264") is gpu("cuda:1", codec=None) is None


def test_a_gpu_of_the_network_decodes_too() -> None:
    place = Place(torch.device("cuda:1"), "pytorch")
    with pytest.MonkeyPatch.context() as patch:
        given: dict[str, object] = {}
        patch.setattr("vsr.jobs.source.VideoReader", lambda source, options, **rest: given.update(rest))
        open_source(File(Path("in.mp4")), InputOptions(hwaccel="auto"), place)
    assert given["gpu"] == 1


@pytest.mark.parametrize(
    ("codec", "asked", "size", "is_faster"),
    [
        ("libx264", {}, (2560, 1440), True),
        ("libx264", {"encoder_options": {"tune": "film"}}, (2560, 1440), True),
        ("libx264", {}, (1920, 1080), False),
        ("libx264", {"preset": "medium"}, (2560, 1440), False),
        ("libx264", {"crf": 18.0}, (2560, 1440), False),
        ("libx264", {"encoder_options": {"b": "4M"}}, (2560, 1440), False),
        ("libx265", {}, (2560, 1440), False),
    ],
)
def test_large_frames_get_x264s_faster_preset_unless_one_is_asked_for(
    codec: str, asked: dict[str, Any], size: tuple[int, int], is_faster: bool
) -> None:
    options, color = EncodingOptions(**asked), cast(Any, None)
    usual = Encoding("mp4", codec, _encoder_options(find_encoder(codec), options), FORMATS["yuv420p"], color)
    chosen = suited_to_size(usual, options, *size).options
    assert (chosen != usual.options) is is_faster
    if is_faster:
        assert chosen == usual.options | {"preset": "veryfast", "crf": "17"}
