"""Images in the body of a request: multipart/form-data, JSON with base64, or the file itself."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

from preceptor.config.settings import ImageFormat
from preceptor.data.images import pixel_formats
from preceptor.errors import is_control
from preceptor.predictor.inputs import BadImage, Canvas, canvas_of
from preceptor.serve.multipart import parts_of
from preceptor.web.json_body import parse
from preceptor.web.refusal import RefusedError, malformed

_RAW = ("application/octet-stream", "binary/octet-stream")
_LONGEST_SIDE = 65_535
"""Largest width and height: resampling needs memory for each row and column of an image."""
PIXELS_OF_REQUEST = 4
"""Largest number of pixels of all images of a request, in multiples of that of an image."""


@dataclass(frozen=True)
class Upload:
    """Image in a request.

    Args:
        name: Name in messages and in the answer, in one line.
        content: Content of the file.
    """

    name: str
    content: bytes


def uploads_of(content_type: str, body: bytes, most: int) -> list[Upload]:
    """Images of a body.

    Args:
        content_type: Header Content-Type.
        body: Body.
        most: Largest number of images.

    Raises:
        RefusedError: The type is another (415), the body is malformed (400), or it has no images
            (422) or too many (413).

    Example:
        >>> uploads_of("image/png", b"...", 1)
        [Upload(name='image', content=b'...')]
    """
    kind = content_type.split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        parts = parts_of(content_type, body, most + 1)
        if any(not one.filename for one in parts):
            raise malformed(
                "a part of the body has no file name; images need one, and parameters belong into "
                "the address, as in /predict?threshold=0.5"
            )
        found = [Upload(one.filename, one.content) for one in parts]
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
            if not isinstance(name, str) or len(name) > 200 or any(map(is_control, name)):
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
    """Check the sizes of the images of a request, which their headers have.

    Args:
        uploads: Images.
        pixels: Largest number of pixels of an image; all together have at most `PIXELS_OF_REQUEST`
            times as many.

    Raises:
        RefusedError: One is no image or too large (422), or all are together (413).
    """
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
        raise RefusedError(
            413,
            f"the images of the request have {total:,} pixels; at most "
            f"{PIXELS_OF_REQUEST * pixels:,} are decoded; send fewer at a time",
        )


def decode_upload(upload: Upload, form: ImageFormat) -> Canvas:
    """Image on the canvas of a model.

    Args:
        upload: Image whose size is checked, see `check_sizes`.
        form: Input format of the model.

    Raises:
        RefusedError: It is damaged (422).
    """
    with _opened(upload) as image:
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
