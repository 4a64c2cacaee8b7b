"""What a server of models takes and answers, as openapi.json describes it."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from preceptor.config.settings import ImageFormat
from preceptor.data.images import decoding_reason, pixel_formats
from preceptor.deploy.http import RefusedError, malformed
from preceptor.deploy.prediction import Prediction, decide
from preceptor.deploy.predictor import BATCH_SIZE, BadImage, Canvas, canvas_of
from preceptor.errors import one_line
from preceptor.utils.process import DECODING

PIXELS_OF_REQUEST = 4
"""Largest number of pixels of all images of a request, in multiples of that of an image."""
_LONGEST_NAME = 200
_DIGITS = 6  # of the values of a map
_LONGEST_SIDE = 65_535  # resampling needs memory for each row and column of an image
# Its warnings are a line for each malformed request.
logging.getLogger("python_multipart").setLevel(logging.ERROR)
_RAW = ("application/octet-stream", "binary/octet-stream", "application/dicom")

MapForm = Literal["none", "grid", "png"]


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
    """Images of a body: multipart/form-data, or the file itself.

    Example:
        >>> uploads_of("image/png", b"...", 1)
        [Upload(name='image', content=b'...')]
    """
    kind = content_type.split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = asyncio.run(_from_form(content_type, body, most))
    elif kind.startswith("image/") or kind in _RAW:
        uploads = [Upload("image", body)]
    else:
        raise RefusedError(
            415,
            "send the images as multipart/form-data, or one image with its own type",
        )
    if not uploads:
        raise RefusedError(422, "the request has no images")
    if len(uploads) > most:
        raise RefusedError(413, f"the request has more than {most} images")
    return uploads


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
    uploads = []
    for _, part in form.multi_items():
        assert isinstance(part, UploadFile)
        name = one_line(part.filename or "")
        name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        uploads.append(Upload(name, part.file.read()))
    await form.close()
    return uploads


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
        canvas = canvas_of(image, form)
    if isinstance(canvas, BadImage):
        raise RefusedError(422, f"{upload.name}: {canvas.reason}")
    return canvas


def _opened(upload: Upload) -> Image.Image:
    """Image of which the header was read; nothing is decoded."""
    try:
        return Image.open(io.BytesIO(upload.content), formats=pixel_formats())
    except Exception as error:  # Pillow's plugins raise many types of exceptions on corrupt files
        raise RefusedError(422, f"{upload.name}: {one_line(decoding_reason(error))}") from error


def answer_of(
    name: str, prediction: Prediction, threshold: float | None, form: MapForm
) -> dict[str, Any]:
    """Answer for an image, with its map in a form."""
    info, (width, height) = prediction.info, prediction.size
    (decision,) = decide(prediction.class_probabilities[None], info.positive_index, threshold)
    return {
        "name": name,
        "width": width,
        "height": height,
        "score": prediction.score,
        "decision": info.classes[decision],
        "probabilities": prediction.probabilities,
        "map": _map(prediction, form),
    }


def _map(prediction: Prediction, form: MapForm) -> dict[str, Any] | None:
    if form == "none":
        return None
    told = {"of": prediction.map_class, "form": form, "values": None, "png": None}
    if form == "grid":
        return told | {"values": np.round(prediction.map.astype(np.float64), _DIGITS).tolist()}
    file = io.BytesIO()
    levels = np.rint(prediction.map_at_image() * np.float32(255)).astype(np.uint8)
    Image.fromarray(levels).save(file, "PNG", compress_level=1)
    return told | {"png": base64.b64encode(file.getvalue()).decode("ascii")}
