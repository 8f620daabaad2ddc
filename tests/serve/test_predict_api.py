"""TensorFlow Serving's predict dialect, by the shapes that its documentation gives."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("PIL")

from PIL import Image

from vsr.pipeline.loading import load_model
from vsr.serve.image_models import ALIASES

PIXELS = np.random.default_rng(1).integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)


def predict(client: Any, name: str = "nano", **body: Any) -> Any:
    return client.post(f"/v1/models/{name}:predict", content=json.dumps(body))


def upscaled(image: np.ndarray) -> np.ndarray:
    return load_model("nano", device="cpu", backend="pytorch").upscale_image(image)


def png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_rows_give_predictions(client: Any) -> None:
    answer = predict(client, instances=(PIXELS / 255).tolist())
    assert answer.status_code == 200
    assert list(answer.json()) == ["predictions"]
    outputs = np.array(answer.json()["predictions"])
    assert outputs.shape == (2, 20, 24, 3)
    assert abs(outputs[0] * 255 - upscaled(PIXELS[0])).max() < 0.51  # of 8 bits, rounded
    assert 0 <= outputs.min() <= outputs.max() <= 1


def test_columns_give_outputs(client: Any) -> None:
    for inputs in (PIXELS.tolist(), {"inputs": PIXELS.tolist()}):
        answer = predict(client, signature_name="uint8", inputs=inputs)
        assert list(answer.json()) == ["outputs"]
        assert np.array_equal(answer.json()["outputs"][1], upscaled(PIXELS[1]))


def test_a_signature_has_values_from_minus_one(client: Any) -> None:
    signed = np.array(predict(client, signature_name="signed", inputs=(PIXELS / 127.5 - 1).tolist()).json()["outputs"])
    plain = np.array(predict(client, inputs=(PIXELS / 255).tolist()).json()["outputs"])
    assert abs((signed + 1) / 2 - plain).max() < 1e-4
    assert signed.min() < -0.5


def test_pictures_come_as_base64(client: Any) -> None:
    instances = [{"b64": png(PIXELS[0])}, {"image_bytes": {"b64": png(PIXELS[1][:3])}}]
    answer = predict(client, signature_name="image_bytes", instances=instances)
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each["b64"])))) for each in answer.json()["predictions"]
    )
    assert np.array_equal(first, upscaled(PIXELS[0]))
    assert np.array_equal(second, upscaled(PIXELS[1][:3]))


def test_pictures_may_come_back_as_numbers(client: Any) -> None:
    answer = predict(client, signature_name="uint8", instances=[{"b64": png(PIXELS[0])}])
    assert np.array_equal(answer.json()["predictions"][0], upscaled(PIXELS[0]))


def test_a_single_channel_stays_single(client: Any) -> None:
    answer = predict(client, instances=(PIXELS[:1, ..., :1] / 255).tolist())
    assert np.array(answer.json()["predictions"]).shape == (1, 20, 24, 1)


def test_status_is_that_of_the_documentation(client: Any) -> None:
    expected = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/nano", "/v1/models/nano/versions/1"):
        assert client.get(path).json() == {"model_version_status": [expected]}


@pytest.mark.parametrize("name", ["srgan_mse", "srgan_perpix", "nano"])
def test_metadata_tells_signatures_and_the_model_behind_a_name(client: Any, name: str) -> None:
    metadata = client.get(f"/v1/models/{name}/metadata").json()
    assert metadata["model_spec"] == {"name": name, "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["inputs"]["dtype"] == "DT_FLOAT"
    assert metadata["metadata"]["vsr"]["model"] == ALIASES.get(name, name)


def test_the_names_of_the_earlier_service_predict(client: Any) -> None:
    for name in ALIASES:
        answer = predict(client, name, instances=(PIXELS[:1, :3, :4] / 255).tolist())
        assert np.array(answer.json()["predictions"]).shape == (1, 12, 16, 3)


def test_a_version_is_predicted_by(client: Any) -> None:
    body = {"instances": [[[[0.5, 0.5, 0.5]]]]}
    assert client.post("/v1/models/nano/versions/1:predict", json=body).status_code == 200
    answer = client.post("/v1/models/nano/versions/2:predict", json=body)
    assert answer.status_code == 404
    assert answer.json() == {"error": "Servable not found for request: Specific(nano, 2)"}


def test_an_unknown_model_is_404(client: Any) -> None:
    for answer in (predict(client, "half", instances=[1.0]), client.get("/v1/models/half")):
        assert answer.status_code == 404
        assert answer.json() == {"error": "Servable not found for request: Latest(half)"}


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "{}",
        '{"instances": [[[[1]]]], "inputs": [[[[1]]]]}',
        '{"instances": []}',
        '{"instances": 1}',
        '{"instances": [1.0, 2.0]}',
        '{"instances": [[[1, 2, 3]]]}',
        '{"instances": [[[[1, 2, 3]]]]}',  # beyond 1
        '{"instances": [[[[NaN, 0, 0]]]]}',
        '{"instances": [[[[Infinity, 0, 0]]]]}',
        '{"instances": [[[[0, 0]]]]}',
        '{"instances": [[[[0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]]}',
        '{"instances": [[[["a", "b", "c"]]]]}',
        '{"instances": [{"b64": "!"}]}',
        '{"instances": [{"b64": "AAAA"}]}',
        '{"instances": [{"b64": 1}]}',
        '{"instances": [{"x": [[[0, 0, 0]]]}]}',
        '{"instances": [null]}',
        '{"inputs": {"x": 1}}',
        '{"signature_name": "none", "instances": [[[[0, 0, 0]]]]}',
        '{"signature_name": [], "instances": [[[[0, 0, 0]]]]}',
        '{"signature_name": "uint8", "instances": [[[[0.5, 0, 0]]]]}',
        '{"signature_name": "uint8", "instances": [[[[256, 0, 0]]]]}',
        '{"signature_name": "image_bytes", "instances": [[[[0, 0, 0]]]]}',
        "[" * 100_000,
    ],
)
def test_a_wrong_request_is_an_error_in_words(client: Any, body: str) -> None:
    answer = client.post("/v1/models/nano:predict", content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]
