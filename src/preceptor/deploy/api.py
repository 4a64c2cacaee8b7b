"""What a server of models takes and answers: images in bodies, typed answers, OpenAPI document."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from preceptor.config.settings import ImageFormat
from preceptor.data.images import pixel_formats
from preceptor.deploy.http import RefusedError, malformed, parse
from preceptor.deploy.prediction import Prediction, decide
from preceptor.deploy.predictor import BATCH_SIZE, BadImage, Canvas, canvas_of
from preceptor.errors import is_control, one_line
from preceptor.utils.process import DECODING
from preceptor.version import __version__

PIXELS_OF_REQUEST = 4
"""Largest number of pixels of all images of a request, in multiples of that of an image."""
_LONGEST_NAME = 200
_DIGITS = 6  # of the values of a map
_LONGEST_SIDE = 65_535  # resampling needs memory for each row and column of an image
# Its warnings are a line for each malformed request.
logging.getLogger("python_multipart").setLevel(logging.ERROR)
_RAW = ("application/octet-stream", "binary/octet-stream")

MapForm = Literal["none", "grid", "png"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MapAnswer(_Answer):
    """Decision map of an image."""

    of: str = Field(description="Class of the map.")
    form: Literal["grid", "png"] = Field(description="Form that the request named.")
    values: list[list[float]] | None = Field(
        description="Rows of values in [0, 1] on the grid of the model; null for png."
    )
    png: str | None = Field(
        description="Grayscale PNG file of 8 bits at the size of the image, in base64; else null."
    )


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


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server."""

    threshold: str | None = None  # if a request has none, see `find_threshold`
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    batch_size: int = BATCH_SIZE
    delay: float = 0.005  # longest time in seconds that an image waits for others to fill a batch
    queue: int = 256  # largest number of images that are being answered; further ones are refused
    timeout: float = 30.0  # longest time in seconds from the body of a request to its answer
    workers: int | None = None  # number of threads that decode; None = one per core
    body: int = 32 * 2**20  # largest body in bytes
    pixels: int = 50_000_000  # largest number of pixels per image
    images: int = 32  # largest number of images per request

    @property
    def images_per_request(self) -> int:
        """Largest number of images of a request that can be answered."""
        return min(self.images, self.queue)

    @property
    def bodies(self) -> int:
        """Largest size in bytes of all bodies that are being read or answered."""
        return 8 * self.body


class Upload(NamedTuple):
    """Image in a request."""

    name: str  # name in messages and in the answer, in one line
    content: bytes


def uploads_of(content_type: str, body: bytes, most: int) -> list[Upload]:
    """Images of a body: multipart/form-data, JSON with base64, or the file itself.

    Example:
        >>> uploads_of("image/png", b"...", 1)
        [Upload(name='image', content=b'...')]
    """
    kind = content_type.split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = asyncio.run(_from_form(content_type, body, most))
    elif kind == "application/json":
        found = _from_json(parse(body), most)
    elif kind.startswith("image/") or kind in _RAW:
        found = [Upload("image", body)]
    else:
        raise RefusedError(
            415,
            "send the images as multipart/form-data, as application/json with base64, or one image "
            "with its own type",
        )
    if not found:
        raise RefusedError(422, "the request has no images")
    if len(found) > most:
        raise RefusedError(413, f"the request has more than {most} images")
    return found


async def _from_form(content_type: str, body: bytes, most: int) -> list[Upload]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    _, options = parse_options_header(content_type)
    if b"--" + options.get(b"boundary", b"") + b"--" not in body:
        raise malformed("the body does not contain its last boundary")
    headers = Headers({"content-type": content_type})
    parser = MultiPartParser(headers, stream(), max_files=most + 1, max_fields=0)
    parser.spool_max_size = len(body) + 1  # nothing is written to a disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise RefusedError(413, f"the request has more than {most} images") from error
        if "Too many fields" in error.message:
            raise malformed(
                "a part of the body has no file name; images need one, and parameters belong into "
                "the address, as in /predict?threshold=0.5"
            ) from error
        raise malformed(f"the body is malformed: {one_line(error.message)}") from error
    except (UnicodeError, LookupError, ValueError) as error:
        raise malformed("the body is malformed: a head of a part") from error
    found = []
    for _, part in form.multi_items():
        assert isinstance(part, UploadFile)
        name = one_line(part.filename or "")
        name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        found.append(Upload(name, part.file.read()))
    await form.close()
    return found


def _from_json(body: dict[str, Any], most: int) -> list[Upload]:
    if body.keys() != {"images"} or not isinstance(body["images"], list):
        raise malformed('the body must be {"images": [...]}, with the images in base64')
    if len(body["images"]) > most:
        raise RefusedError(413, f"the request has more than {most} images")
    found = []
    for number, value in enumerate(body["images"], 1):
        name, data = f"image {number}", value
        if isinstance(value, dict) and value.keys() == {"name", "data"}:
            name, data = value["name"], value["data"]
            if not isinstance(name, str) or len(name) > _LONGEST_NAME or any(map(is_control, name)):
                raise malformed(f"image {number}: name must be a text of at most 200 characters")
        if not isinstance(data, str):
            raise malformed(f"image {number}: a text in base64 is needed")
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise malformed(f"image {number}: it is not in base64") from error
        found.append(Upload(name, content))
    return found


def check_sizes(uploads: Sequence[Upload], pixels: int) -> None:
    """Refuse images that are none or too large (422), or all together too large (413)."""
    total = 0
    for upload in uploads:
        if not upload.content:
            raise RefusedError(422, f"{upload.name}: the file is empty (0 bytes)")
        with _opened(upload) as image:
            width, height = image.size
        size = f"{upload.name}: {width:,} × {height:,} pixels"
        if width * height > pixels:
            raise RefusedError(422, f"{size}; at most {pixels:,} are decoded")
        if max(width, height) > _LONGEST_SIDE:
            raise RefusedError(422, f"{size}; a side has at most {_LONGEST_SIDE:,}")
        total += width * height
    if total > PIXELS_OF_REQUEST * pixels:
        most = f"at most {PIXELS_OF_REQUEST * pixels:,} are decoded; send fewer at a time"
        raise RefusedError(413, f"the images of the request have {total:,} pixels; {most}")


def decode_upload(upload: Upload, form: ImageFormat) -> Canvas:
    """Image on the canvas of a model; all threads together decode a limited number of pixels."""
    with _opened(upload) as image, DECODING.reserve(image.width * image.height):
        # Not the content: a file can be of two formats, and that of another one has another size.
        found = canvas_of(image, form)
    if isinstance(found, BadImage):
        raise RefusedError(422, f"{upload.name}: {found.reason}")
    return found


def _opened(upload: Upload) -> Image.Image:
    """Image of which the header was read; nothing is decoded."""
    try:
        return Image.open(io.BytesIO(upload.content), formats=pixel_formats())
    except UnidentifiedImageError:
        reason = "not an image in a known format, or its header is damaged"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = "too large to decode safely"
    except Exception:  # Pillow's plugins raise many types of exceptions on corrupt files
        reason = "its header is damaged"
    raise RefusedError(422, f"{upload.name}: {reason}")


def answer_of(
    name: str, prediction: Prediction, threshold: float | None, form: MapForm
) -> PredictionAnswer:
    """Answer for an image, with its map in a form."""
    info, (width, height) = prediction.info, prediction.size
    (decision,) = decide(prediction.class_probabilities[None], info.positive_index, threshold)
    return PredictionAnswer(
        name=name,
        width=width,
        height=height,
        score=prediction.score,
        decision=info.classes[decision],
        probabilities=prediction.probabilities,
        map=_map(prediction, form),
    )


def _map(prediction: Prediction, form: MapForm) -> MapAnswer | None:
    if form == "none":
        return None
    if form == "png":
        file = io.BytesIO()
        levels = np.rint(prediction.map_at_image() * np.float32(255)).astype(np.uint8)
        Image.fromarray(levels).save(file, "PNG", compress_level=1)
        text = base64.b64encode(file.getvalue()).decode("ascii")
        return MapAnswer(of=prediction.map_class, form=form, values=None, png=text)
    rows = np.round(prediction.map.astype(np.float64), _DIGITS).tolist()
    return MapAnswer(of=prediction.map_class, form=form, values=rows, png=None)


def openapi(settings: ServeSettings, *, keys: bool) -> dict[str, Any]:
    """OpenAPI 3.1 document of a server."""
    answers = (PredictAnswer, ModelsAnswer, HealthAnswer, ReadyAnswer, ErrorAnswer)
    _, schema = models_json_schema(
        [(one, "serialization") for one in answers], ref_template="#/components/schemas/{model}"
    )
    ready = _operation("Whether requests are taken", "ReadyAnswer")
    ready["responses"]["503"] = _response("The server is stopping.", "ReadyAnswer")
    metrics = _operation("Metrics in the text format of Prometheus", "")
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    paths: dict[str, Any] = {
        "/predict": {"post": _predict(settings)},
        "/models": {"get": _operation("Models", "ModelsAnswer")},
        "/healthz": {"get": _operation("Whether the process works", "HealthAnswer")},
        "/readyz": {"get": ready},
        "/metrics": {"get": metrics},
    }
    components: dict[str, Any] = {"schemas": schema["$defs"]}
    if keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, method in (("/predict", "post"), ("/models", "get"), ("/metrics", "get")):
            paths[path][method]["security"] = [{"bearer": []}, {"key": []}]
    info = {
        "title": "preceptor serve",
        "version": __version__,
        "description": "Predictions of trained image classifiers, with decision maps.",
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _object(**properties: Any) -> dict[str, Any]:
    keys = {"properties": properties, "required": list(properties)}
    return {"type": "object", **keys, "additionalProperties": False}


def _predict(settings: ServeSettings) -> dict[str, Any]:
    text = {"type": "string", "contentEncoding": "base64"}
    named = _object(name={"type": "string", "maxLength": _LONGEST_NAME}, data=text)
    most = settings.images_per_request
    images = {"type": "array", "items": {"anyOf": [text, named]}, "minItems": 1, "maxItems": most}
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    files = {"type": "array", "items": file, "description": "Files, in fields of any name."}
    forms = {"type": "string", "enum": list(get_args(MapForm)), "default": "none"}
    parameters = {
        "model": ("Name of a model; the first one if it is left out.", {"type": "string"}),
        "map": ("Form of the decision map.", forms),
        "threshold": ("Rule (eer, fdr5%, bpcer1%) or number.", {"type": "string"}),
    }
    kinds = {
        "multipart/form-data": {"type": "object", "properties": {"image": files}},
        "application/json": _object(images=images),
        "image/*": {},
        "application/octet-stream": {},
    }
    return _operation("Predict images", "PredictAnswer") | {
        "operationId": "predict",
        "description": f"At most {most} images and {settings.body // 2**20} MiB per request, "
        f"{settings.pixels:,} pixels per image. All images are predicted, or none.",
        "parameters": [
            {"name": name, "in": "query", "description": about, "schema": schema}
            for name, (about, schema) in parameters.items()
        ],
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": schema} for kind, schema in kinds.items()},
        },
    }


def _operation(summary: str, answer: str) -> dict[str, Any]:
    refusal = _response("The request was not carried out.", "ErrorAnswer")
    responses = {"200": _response(f"{summary}.", answer), "default": refusal}
    return {"summary": summary, "responses": responses}


def _response(text: str, answer: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{answer}"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
