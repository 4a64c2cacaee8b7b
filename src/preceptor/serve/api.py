"""Answers of the server as typed models, from which its OpenAPI document is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from preceptor.serve.settings import ServeSettings
from preceptor.version import __version__

MapForm = Literal["none", "grid", "image", "png"]
MAP_FORMS: tuple[MapForm, ...] = ("none", "grid", "image", "png")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MapAnswer(_Answer):
    """Decision map of an image."""

    of: str = Field(description="Class of the map.")
    form: Literal["grid", "image", "png"] = Field(description="Form that the request named.")
    values: list[list[float]] | None = Field(
        description="Rows of values in [0, 1], on the grid of the model or at the size of the "
        "image; null for png."
    )
    png: str | None = Field(
        description="Grayscale PNG file of 8 bits at the size of the image, in base64; else null."
    )


class UnfamiliarAnswer(_Answer):
    """How far an image is from the training images, in comparison with validation images."""

    flagged: bool = Field(description="Whether `share` is at most `rate`.")
    share: float = Field(description="Share of validation images that are at least as far.")
    rate: float = Field(description="Rate of false alarms.")
    distance: float = Field(description="Distance from the training images.")


class PredictionAnswer(_Answer):
    """Prediction for one image."""

    name: str = Field(description="Name of the file, or of the image in the request.")
    width: int = Field(description="Width of the upright image in pixels.")
    height: int = Field(description="Height of the upright image in pixels.")
    score: float = Field(
        description="Probability of the positive class, or without one of the most probable class."
    )
    decision: str = Field(description="Class by the threshold, or the most probable class.")
    probabilities: dict[str, float] = Field(description="Probability of each class.")
    map: MapAnswer | None = Field(description="Decision map; null if none was asked for.")
    unfamiliar: UnfamiliarAnswer | None = Field(
        description="How unfamiliar the image is; null if the model has no reference."
    )


class PredictAnswer(_Answer):
    """Predictions for the images of a request, in their order."""

    model: str = Field(description="Name of the model.")
    revision: str = Field(description="First digits of the hash of the files of the model.")
    threshold: float | None = Field(
        description="Threshold of the decision; null = the most probable class."
    )
    predictions: list[PredictionAnswer]


class ModelAnswer(_Answer):
    """Served model."""

    name: str
    revision: str
    backbone: str
    classes: list[str]
    positive: str | None
    threshold: float | None = Field(description="Threshold if a request has none.")
    thresholds: dict[str, float] = Field(description="Thresholds by rule, fixed on validation.")
    maps: Literal["cam", "gradcam", "none"]
    input_size: int = Field(description="Side of the input in pixels.")
    batch_size: int = Field(description="Largest number of images per pass.")
    version: str = Field(description="Version of the library that built the model.")


class ModelsAnswer(_Answer):
    """Served models; the first one answers requests that name none."""

    models: list[ModelAnswer]


class HealthAnswer(_Answer):
    """The process works."""

    status: Literal["ok"]
    version: str


class ReadyAnswer(_Answer):
    """Whether requests are taken."""

    status: Literal["ready", "stopping"]
    models: list[str] = Field(description="Names of the models.")


class ErrorAnswer(_Answer):
    """Request that was not carried out."""

    error: str = Field(description="Reason in one line.")


_ANSWERS = (PredictAnswer, ModelsAnswer, HealthAnswer, ReadyAnswer, ErrorAnswer)
_REFUSALS = {
    "400": "The body or a parameter is malformed.",
    "401": "An API key is needed.",
    "403": "Without keys: the request names another host, or comes from another page.",
    "404": "There is no such model.",
    "408": "The body took too long.",
    "413": "The body is too large, or has too many images or pixels.",
    "415": "The type of the body is not known.",
    "422": "An image cannot be decoded or is too large; there are no images, no maps, or no such "
    "threshold; the maps are too large to be written as numbers.",
    "429": "The queue is full; try again after the seconds of Retry-After.",
    "500": "Something is wrong in the server.",
    "503": "The server is stopping.",
    "504": "The prediction took too long.",
}
_IMAGE = {"type": "string", "contentEncoding": "base64"}


def openapi(settings: ServeSettings, *, keys: bool) -> dict[str, Any]:
    """OpenAPI 3.1 document of a server.

    Args:
        settings: Settings, whose limits it states.
        keys: Whether API keys are needed.
    """
    _, schema = models_json_schema(
        [(one, "serialization") for one in _ANSWERS], ref_template="#/components/schemas/{model}"
    )
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "preceptor serve",
            "version": __version__,
            "description": "Predictions of trained image classifiers, with decision maps.",
        },
        "paths": {
            "/predict": {"post": _predict(settings)},
            "/models": {"get": _get("Models", "ModelsAnswer", "401", "403")},
            "/healthz": {"get": _get("Whether the process works", "HealthAnswer")},
            "/readyz": {"get": _ready()},
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": schema["$defs"]},
    }
    if keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, method in (("/predict", "post"), ("/models", "get"), ("/metrics", "get")):
            document["paths"][path][method]["security"] = [{"bearer": []}, {"key": []}]
    return document


def _predict(settings: ServeSettings) -> dict[str, Any]:
    limits = (
        f"At most {settings.images_per_request} images and {settings.body // 2**20} MiB per "
        f"request, {settings.pixels:,} pixels per image."
    )
    named = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 200}, "data": _IMAGE},
        "required": ["name", "data"],
        "additionalProperties": False,
    }
    listed = {
        "type": "object",
        "properties": {
            "images": {
                "type": "array",
                "items": {"anyOf": [_IMAGE, named]},
                "minItems": 1,
                "maxItems": settings.images_per_request,
            }
        },
        "required": ["images"],
        "additionalProperties": False,
    }
    files = {
        "type": "object",
        "properties": {
            "image": {
                "type": "array",
                "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                "description": "Files, in fields of any name.",
            }
        },
    }
    return {
        "summary": "Predict images",
        "operationId": "predict",
        "description": f"{limits} All images are predicted, or none.",
        "parameters": [
            _query("model", "Name of a model; the first one if it is left out.", "string"),
            _query("map", "Form of the decision map.", "string", list(MAP_FORMS), "none"),
            _query("threshold", "Rule (eer, fdr5%, bpcer1%) or number.", "string"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": files},
                "application/json": {"schema": listed},
                "image/*": {"schema": {}},
                "application/octet-stream": {"schema": {}},
            },
        },
        "responses": {"200": _response("Predictions.", "PredictAnswer")}
        | {code: _response(text, "ErrorAnswer") for code, text in _REFUSALS.items()},
    }


def _query(
    name: str, text: str, kind: str, choices: list[str] | None = None, default: str | None = None
) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": kind}
    if choices:
        schema |= {"enum": choices, "default": default}
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _get(summary: str, answer: str, *refusals: str) -> dict[str, Any]:
    codes = {code: _response(_REFUSALS[code], "ErrorAnswer") for code in refusals}
    return {"summary": summary, "responses": {"200": _response(summary + ".", answer)} | codes}


def _ready() -> dict[str, Any]:
    found = _get("Whether requests are taken", "ReadyAnswer")
    found["responses"]["503"] = _response("The server is stopping.", "ReadyAnswer")
    return found


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "summary": "Metrics in the text format of Prometheus",
        "responses": {
            "200": {"description": "Metrics.", "content": content},
            **{code: _response(_REFUSALS[code], "ErrorAnswer") for code in ("401", "403")},
        },
    }


def _response(text: str, answer: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{answer}"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
