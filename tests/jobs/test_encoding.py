from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import av
import pytest

from vsr.color.pixel_formats import FORMATS
from vsr.errors import OptionError
from vsr.frames import Range
from vsr.jobs.encoding import _choose_pixel_format, _encoder_options, _loss
from vsr.media.formats import find_container, find_encoder
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
