"""Answer in the dialect of the ×4 image service, MAX-Image-Resolution-Enhancer, whose clients work unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import cv2
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from vsr.errors import InputError
from vsr.models.cards import ModelCard
from vsr.serve.errors import RefusedError, TooLargeError
from vsr.serve.image_files import NO_IMAGE
from vsr.serve.services import Services

__all__ = ["make_image_router"]

_ID = "max-image-resolution-enhancer"
_SOURCE = "https://pypi.org/project/vsr-enhance/"
_FIELD = "An image file: PNG, TIFF, JPEG, GIF, WebP or BMP."
_INVALID = "Input payload validation failed"
_MESSAGE = {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary", "description": _FIELD}},
            }
        }
    },
}
_METADATA_EXAMPLE = {
    "id": _ID,
    "name": "Super-Resolution Generative Adversarial Network (SRGAN)",
    "description": "srgan: sharper, and it invents detail.",
    "type": "Image-To-Image Translation Or Transformation",
    "source": _SOURCE,
    "license": "Apache V2",
}


def make_image_router(services: Services) -> APIRouter:
    """Make the routes of the image service."""
    router = APIRouter(tags=["images"])

    @router.post(
        "/model/predict",
        summary="Upscale an image",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "The upscaled image, as PNG"}, **_failures()},
        openapi_extra={"requestBody": _FORM},
    )
    async def predict(
        request: Request,
        model: str | None = Query(None, description="A model; by default the service's own.", examples=["fast"]),
        scale: float | None = Query(None, ge=1, le=16, description="Output pixels per input pixel.", examples=[4]),
    ) -> Response:
        """Take an image as the field `image` of a form; give it back as the attachment `result.png`."""
        async with _form_of(request) as form:
            upload = form.get("image")
            if not isinstance(upload, UploadFile):
                errors = {"image": f"{_FIELD} Missing required parameter in an uploaded file"}
                return JSONResponse({"errors": errors, "message": _INVALID}, 400)
            try:
                png = await services.images.upscale_file(upload.file, request.state.held, model, scale, _with_colors)
            except (InputError, TooLargeError) as error:
                raise RefusedError(str(error)) from error  # 400, as there
        return Response(png, media_type="image/png", headers={"Content-Disposition": "attachment; filename=result.png"})

    @router.get(
        "/model/metadata",
        summary="Describe the model",
        responses={200: {"content": {"application/json": {"example": _METADATA_EXAMPLE}}}},
    )
    async def metadata() -> dict[str, str]:
        return _metadata(services.images.models.find(None)[1])

    @router.get("/model/labels", summary="Say that the model has no labels", status_code=404, responses=_failures(404))
    async def labels() -> JSONResponse:
        return JSONResponse({"message": "The requested URL was not found on the server: the model has no labels."}, 404)

    @router.get("/swagger.json", include_in_schema=False)
    async def swagger() -> dict[str, Any]:
        return _swagger()

    return router


@asynccontextmanager
async def _form_of(request: Request) -> AsyncIterator[FormData]:
    """Parse the form of a request, and close its files in the end; a body that is no form has no fields."""
    try:
        form = await request.form(max_files=4, max_fields=16)
    except HTTPException as error:
        raise RefusedError(f"{_INVALID}: {error.detail}") from error
    try:
        yield form
    finally:
        await form.close()


def _with_colors(image: np.ndarray) -> np.ndarray:
    """Turn gray into RGB, as the clients of that service expect; alpha and 16 bits stay."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _metadata(card: ModelCard) -> dict[str, str]:
    name = _METADATA_EXAMPLE["name"] if card.name == "srgan" else card.name
    license_ = "Apache V2" if card.license == "Apache-2.0" else card.license
    return _METADATA_EXAMPLE | {
        "name": name, "description": f"{card.name}: {card.description}", "license": license_,
    }  # fmt: skip


def _failures(*codes: int) -> dict[int | str, dict[str, Any]]:
    texts = {400: NO_IMAGE, 404: "unknown model 'x'", 413: "the request is too large", 503: "try again in a moment"}
    return {
        code: {
            "description": text,
            "content": {"application/json": {"schema": _MESSAGE, "example": {"message": text}}},
        }
        for code, text in texts.items()
        if not codes or code in codes
    }


def _swagger() -> dict[str, Any]:
    """Describe the routes of the image service as Swagger 2.0, which its clients read."""
    fields = {name: {"type": "string"} for name in _METADATA_EXAMPLE}
    image = {"name": "image", "in": "formData", "type": "file", "required": True, "description": _FIELD}
    return {
        "swagger": "2.0",
        "basePath": "/",
        "info": {
            "title": "MAX Image Resolution Enhancer",
            "version": "1.1.0",
            "description": "vsr, in the dialect of that service. /openapi.json describes all that vsr answers.",
        },
        "produces": ["application/json"],
        "consumes": ["application/json"],
        "tags": [{"name": "model", "description": "Model information and inference operations"}],
        "paths": {
            "/model/metadata": {
                "get": {
                    "summary": "Return the metadata associated with the model",
                    "operationId": "get_metadata",
                    "tags": ["model"],
                    "responses": {"200": {"description": "Success", "schema": {"$ref": "#/definitions/ModelMetadata"}}},
                }
            },
            "/model/predict": {
                "post": {
                    "summary": "Make a prediction given input data",
                    "operationId": "predict",
                    "tags": ["model"],
                    "consumes": ["multipart/form-data"],
                    "produces": ["image/png"],
                    "parameters": [image],
                    "responses": {"200": {"description": "Success"}, "400": {"description": NO_IMAGE}},
                }
            },
        },
        "definitions": {"ModelMetadata": {"type": "object", "required": list(fields), "properties": fields}},
    }
