"""Answer in the predict dialect of TensorFlow Serving's REST API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from vsr.errors import InputError, ModelError
from vsr.models.cards import ModelCard
from vsr.serve.errors import RefusedError, TooLargeError
from vsr.serve.images import ImageService
from vsr.serve.predict_pixels import DEFAULT_SIGNATURE, SIGNATURES, PixelSignature, instances_of
from vsr.serve.services import Services
from vsr.serve.settings import Limits

__all__ = ["make_predict_router"]

_VERSION = "1"  # the one version of each model
_STATUS_EXAMPLE = {
    "model_version_status": [
        {"version": _VERSION, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "signature_name": {"type": "string", "enum": list(SIGNATURES)},
                    "instances": {"type": "array", "items": {}},
                    "inputs": {},
                },
            },
            "examples": {
                "row": {"value": {"instances": [[[[0.0, 0.5, 1.0], [0.25, 0.25, 0.25]]]]}},
                "column": {"value": {"signature_name": "uint8", "inputs": [[[[0, 128, 255], [64, 64, 64]]]]}},
                "file": {"value": {"signature_name": "image_bytes", "instances": [{"b64": "iVBORw0KGgo="}]}},
            },
        }
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in ((400, "Wrong request"), (404, "No such model"), (413, "Too large"), (503, "Busy"))
}


def make_predict_router(services: Services) -> APIRouter:
    """Make the routes of TensorFlow Serving."""
    router = APIRouter(prefix="/v1/models", tags=["predict"])
    read = {"responses": {404: _FAILURES[404]}}
    predict = {"responses": _FAILURES, "openapi_extra": {"requestBody": _BODY}, "response_model": dict[str, Any]}

    @router.get("", summary="List the models")
    async def index() -> dict[str, Any]:
        return {"models": [_described(services, name) for name in services.images.models.names]}

    @router.get(
        "/{name}", summary="Tell the status of a model",
        responses={200: {"content": {"application/json": {"example": _STATUS_EXAMPLE}}}, 404: _FAILURES[404]},
    )  # fmt: skip
    async def status(name: str) -> dict[str, Any]:
        _find(services, name)
        return _STATUS_EXAMPLE

    @router.get("/{name}/versions/{version}", summary="Tell the status of a version", **read)  # type: ignore[arg-type]
    async def status_of_version(name: str, version: str) -> dict[str, Any]:
        _find(services, name, version)
        return _STATUS_EXAMPLE

    @router.get("/{name}/metadata", summary="Describe the signatures of a model", **read)  # type: ignore[arg-type]
    async def metadata(name: str) -> dict[str, Any]:
        return _metadata(services, name)

    @router.get("/{name}/versions/{version}/metadata", summary="Describe a version", **read)  # type: ignore[arg-type]
    async def metadata_of_version(name: str, version: str) -> dict[str, Any]:
        _find(services, name, version)
        return _metadata(services, name)

    @router.post("/{name}:predict", summary="Upscale a batch of images", **predict)  # type: ignore[arg-type]
    async def predict_latest(name: str, request: Request) -> Response:
        _find(services, name)
        return await _predict(services, name, request)

    @router.post("/{name}/versions/{version}:predict", summary="Upscale by a version", **predict)  # type: ignore[arg-type]
    async def predict_by_version(name: str, version: str, request: Request) -> Response:
        _find(services, name, version)
        return await _predict(services, name, request)

    return router


async def _predict(services: Services, name: str, request: Request) -> Response:
    """Upscale the images of a request; parse and write them in a thread, as that takes a while."""
    content = await request.body()

    def parsed() -> tuple[bool, PixelSignature, list[np.ndarray]]:
        body = _parsed(content)
        signature = _signature(body)
        return "instances" in body, signature, _images(body, signature, services.settings.limits)

    is_row, signature, images = await services.images.in_thread(parsed)
    results = await services.images.upscale_pixels(images, request.state.held, name)
    texts = _answer_texts("predictions" if is_row else "outputs", results, signature)
    # As text, pixels take several times the memory that they take as numbers: it is made as the client reads it.
    return StreamingResponse(_in_threads(texts, services.images), media_type="application/json")


def _answer_texts(key: str, images: list[np.ndarray], signature: PixelSignature) -> Iterator[str]:
    """Yield the parts of the JSON with all images."""
    yield f'{{"{key}":['
    for number, image in enumerate(images):
        yield "," if number else ""
        yield from signature.write(image)
    yield "]}"


async def _in_threads(texts: Iterator[str], images: ImageService) -> AsyncIterator[str]:
    """Yield the parts of a text, each made beside other requests."""
    while (text := await images.in_thread(lambda: next(texts, None))) is not None:
        yield text


def _images(body: Any, signature: PixelSignature, limits: Limits) -> list[np.ndarray]:
    """Read the images of a request, as long as they are not too many together."""
    values, images, num_pixels = instances_of(body, signature), [], 0
    if len(values) > limits.queued_images:
        raise TooLargeError(f"at most {limits.queued_images} images are taken in a request")
    for value in values:
        image = signature.read(value, limits)
        num_pixels += image.shape[0] * image.shape[1]
        if num_pixels > limits.queued_pixels:
            raise TooLargeError(f"at most {limits.queued_pixels:,} pixels are taken in a request")
        images.append(image)
    return images


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError("JSON Parse error: the request is no JSON") from error


def _signature(body: Any) -> PixelSignature:
    name = body.get("signature_name", DEFAULT_SIGNATURE) if isinstance(body, dict) else DEFAULT_SIGNATURE
    if not isinstance(name, str) or (name or DEFAULT_SIGNATURE) not in SIGNATURES:
        raise InputError(f'Serving signature name: "{name}" not found in signature def; there are {list(SIGNATURES)}')
    return SIGNATURES[name or DEFAULT_SIGNATURE]


def _find(services: Services, name: str, version: str | None = None) -> tuple[str, ModelCard]:
    """Return a model's own name and card, or raise the error that TensorFlow Serving gives."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    try:
        if version in (None, _VERSION):
            return services.images.models.find(name)
    except ModelError:
        pass
    raise RefusedError(f"Servable not found for request: {wanted}", status=404)


def _described(services: Services, name: str) -> dict[str, Any]:
    own, card = _find(services, name)
    return {"name": name, "model": own, "scale": card.scale, "description": card.description, "license": card.license}


def _metadata(services: Services, name: str) -> dict[str, Any]:
    described = _described(services, name)
    signatures = {key: _signature_def(signature) for key, signature in SIGNATURES.items()}
    return {
        "model_spec": {"name": name, "signature_name": "", "version": _VERSION},
        "metadata": {"signature_def": {"signature_def": signatures}, "vsr": described},
    }


def _signature_def(signature: PixelSignature) -> dict[str, Any]:
    sides = [-1] if signature.dtype == "DT_STRING" else [-1, -1, -1, 3]
    shape = {"dim": [{"size": str(side), "name": ""} for side in sides], "unknown_rank": False}

    def tensor(name: str) -> dict[str, Any]:
        return {name: {"dtype": signature.dtype, "tensor_shape": shape, "name": f"{name}:0"}}

    return {
        "inputs": tensor(signature.input_name),
        "outputs": tensor(signature.output_name),
        "method_name": "tensorflow/serving/predict",
    }
