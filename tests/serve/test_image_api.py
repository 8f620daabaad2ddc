"""The ×4 image service's dialect, from the public description of its behaviour."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("PIL")

from PIL import Image

from vsr.pipeline.loading import load_model
from vsr.serve.settings import Limits


def picture(width: int, height: int, mode: str = "RGB") -> Any:
    """A picture with gradients and an edge, so that no channel or side can be taken for another."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x > y) * 200, 255 - x * 100 // width]
    array = np.stack(planes, 2).astype(np.uint8)
    return Image.fromarray(array).convert(mode) if mode != "RGBA" else Image.fromarray(array)


def file_of(image: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def post(client: Any, data: bytes, name: str = "x.png", **params: Any) -> Any:
    return client.post("/model/predict", files={"image": (name, data, "image/png")}, params=params)


def opened(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == "attachment; filename=result.png"
    image = Image.open(io.BytesIO(answer.content))
    assert image.format == "PNG"
    return image


@pytest.mark.parametrize("size", [(26, 39), (79, 21), (32, 20), (1, 1), (7, 88)])
def test_an_image_becomes_four_times_as_large(client: Any, size: tuple[int, int]) -> None:
    image = opened(post(client, file_of(picture(*size), "PNG")))
    assert image.size == (size[0] * 4, size[1] * 4)
    assert image.mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "GIF", "WEBP", "BMP"])
def test_every_kind_is_known_by_its_bytes(client: Any, kind: str) -> None:
    """The name and type that the client gives are wrong, and do not matter."""
    data = file_of(picture(20, 12), kind)
    image = opened(post(client, data, name="../../etc/x.txt"))
    assert image.size == (80, 48)
    small = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
    assert abs(np.asarray(image, np.float32).mean((0, 1)) - small.mean((0, 1))).max() < 6  # of 255: the same picture


def test_the_pixels_are_those_of_upscale_image(client: Any) -> None:
    source = picture(40, 24)
    upscaler = load_model("nano", device="cpu", backend="pytorch")
    expected = upscaler.upscale_image(np.array(source))
    assert np.array_equal(np.asarray(opened(post(client, file_of(source, "PNG")))), expected)


def test_brightness_is_not_stretched(client: Any) -> None:
    """The earlier service divided by the largest value."""
    image = opened(post(client, file_of(Image.new("RGB", (16, 16), (40, 40, 40)), "PNG")))
    assert abs(np.asarray(image).astype(int) - 40).max() <= 2


def test_a_large_image_is_not_reduced_first(client: Any) -> None:
    """The earlier service halved images beyond 500 pixels."""
    assert opened(post(client, file_of(picture(520, 8), "PNG"))).size == (2080, 32)


def test_alpha_is_kept(client: Any) -> None:
    image = opened(post(client, file_of(picture(20, 12, "RGBA"), "PNG")))
    assert image.mode == "RGBA"
    assert 150 < np.asarray(image)[..., 3].min() < 170


def test_gray_becomes_rgb(client: Any) -> None:
    image = opened(post(client, file_of(picture(20, 12, "L"), "PNG")))
    assert image.mode == "RGB"


def test_a_model_and_a_scale_can_be_named(client: Any) -> None:
    assert opened(post(client, file_of(picture(20, 12), "PNG"), model="fast-x2")).size == (40, 24)
    assert opened(post(client, file_of(picture(20, 12), "PNG"), scale=1.5)).size == (30, 18)


def test_files_of_this_machine_are_no_models(client: Any) -> None:
    for name in ("/etc/passwd", "../x.safetensors", "video"):
        answer = post(client, file_of(picture(20, 12), "PNG"), model=name)
        assert answer.status_code == 404
        assert "unknown model" in answer.json()["message"]


def test_a_missing_field_is_named(client: Any) -> None:
    for answer in (client.post("/model/predict"), client.post("/model/predict", files={"other": b"x"})):
        assert answer.status_code == 400
        assert set(answer.json()) == {"errors", "message"}
        assert answer.json()["message"] == "Input payload validation failed"
        assert list(answer.json()["errors"]) == ["image"]


def test_metadata(client: Any) -> None:
    answer = client.get("/model/metadata")
    assert answer.status_code == 200
    assert set(answer.json()) == {"id", "name", "description", "type", "source", "license"}
    assert answer.json()["id"] == "max-image-resolution-enhancer"


def test_labels_are_404_in_the_same_form(client: Any) -> None:
    answer = client.get("/model/labels")
    assert answer.status_code == 404
    assert set(answer.json()) == {"message"}
    assert set(client.get("/model/nothing").json()) == {"message"}
    assert set(client.get("/model/predict").json()) == {"message"}


def test_swagger_lies_beside_openapi(client: Any) -> None:
    swagger = client.get("/swagger.json")
    assert swagger.headers["Content-Type"] == "application/json"
    assert swagger.json()["swagger"] == "2.0"
    assert "/model/predict" in swagger.json()["paths"]
    assert "/model/predict" in client.get("/openapi.json").json()["paths"]


# -- what must not be taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", file_of(picture(200, 200), "PNG")[:60], file_of(picture(200, 200), "JPEG")[:40]])
def test_a_part_of_an_image_is_refused(client: Any, data: bytes) -> None:
    answer = post(client, data)
    assert answer.status_code == 400
    assert set(answer.json()) == {"message"}


def test_pixels_beyond_the_limit_are_refused_before_they_are_decoded(make_client: Callable[..., Any]) -> None:
    client = make_client(limits=Limits(image_pixels=1000, output_pixels=6000))
    assert post(client, file_of(picture(40, 30), "PNG")).status_code == 400
    assert post(client, file_of(picture(20, 15), "PNG")).status_code == 200
    assert post(client, file_of(picture(20, 25), "PNG")).status_code == 400  # 8000 pixels would come out


def test_bytes_beyond_the_limit_are_refused(make_client: Callable[..., Any]) -> None:
    client = make_client(limits=Limits(image_bytes=100))
    assert post(client, bytes(2**20)).status_code == 413
    chunks = (b"x" * 1000 for _ in range(200))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/model/predict", content=chunks, headers=headers).status_code == 413
