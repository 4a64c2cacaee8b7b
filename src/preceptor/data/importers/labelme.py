"""Importer of LabelMe's JSON files, one per image."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from preceptor.data.images import open_image
from preceptor.data.importers.json_stream import read_json
from preceptor.data.importers.json_values import pairs, shown, size_of, text_of
from preceptor.data.importers.shapes import (
    MAX_PIXELS,
    AnnotatedImage,
    Annotation,
    Box,
    Ellipse,
    Floats,
    ImportedAnnotations,
    Log,
    Mask,
    Pixels,
    Points,
    Polygon,
    Polyline,
    Shape,
)
from preceptor.data.importers.source_files import files_of, root_of
from preceptor.data.importers.split_words import split_of, split_of_folders
from preceptor.errors import InputError

_LEAST = {
    "polygon": 3,
    "rectangle": 2,
    "circle": 2,
    "line": 2,
    "linestrip": 2,
    "point": 1,
    "points": 1,
    "mask": 2,
    "oriented_rectangle": 3,
}


def read_labelme(source: Path | str | Sequence[Path | str]) -> ImportedAnnotations:
    """LabelMe: polygons, rectangles, circles, lines, points, masks, and the embedded image.

    A file without shapes says that somebody examined the image. One flag that is set gives the
    image its class. Images of the folder without a JSON file belong to the source. The split is
    that of the folder.

    Args:
        source: JSON files, or a folder with them.

    Raises:
        InputError: There is no such file.
    """
    paths, root = files_of(source, ".json"), root_of(source)

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path in paths:
            of = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            try:
                value = read_json(path)
            except InputError as error:
                log.error(of, error, "export it again", path)
                continue
            record = _image(value, PurePosixPath(of).parent, of, path, log)
            if record is not None:
                yield record

    return ImportedAnnotations(
        "labelme", root, read, annotators=(), count=len(paths), whole_folder=True
    )


def _image(
    value: Any, folder: PurePosixPath, of: str, path: Path, log: Log
) -> AnnotatedImage | None:
    if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
        log.problem(of, "it is not a LabelMe file, which has `shapes`", "remove it from the folder")
        return None
    name = value.get("imagePath")
    if not isinstance(name, str) or not name:
        log.problem(of, f"imagePath is {shown(name)}", "write the name of the image file")
        return None
    size = size_of(value.get("imageWidth"), value.get("imageHeight"))
    if size is None and (value.get("imageWidth"), value.get("imageHeight")) != (None, None):
        what = f"the size is {shown(value.get('imageWidth'))} × {shown(value.get('imageHeight'))}"
        log.problem(of, what, "write imageWidth and imageHeight as whole numbers")
        return None
    found: list[Annotation] = []
    for number, one in enumerate(value["shapes"]):
        place = f"shapes[{number}]"
        shape = _shape(one) if isinstance(one, dict) else f"{shown(one)} is not an object"
        if isinstance(shape, str):
            log.problem(f"{of}, {place}", shape, "correct or remove the shape")
        else:
            found.append(Annotation(shape, text_of(one.get("label")).strip(), where=place))
    embedded = None
    if isinstance(value.get("imageData"), str) and value["imageData"]:
        embedded = _base64(value["imageData"])
        if embedded is None:
            log.problem(of, "imageData is not base64 text", "save it again, or set it to null")
    flags = value.get("flags")
    chosen = [key for key, on in flags.items() if on is True] if isinstance(flags, dict) else []
    return AnnotatedImage(
        _from_root(folder, name),
        size,
        tuple(found),
        tuple(chosen),
        # The source itself may be the folder of a split.
        split_of_folders(folder / path.name) or split_of(path.parent.name),
        True,
        embedded=embedded,
        of=of,
    )


def _from_root(folder: PurePosixPath, name: str) -> str:
    """Path of the image, which is written relative to the JSON file, without leading `..`."""
    parts: list[str] = []
    for part in (folder / name.replace("\\", "/").lstrip("/")).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
    return "/".join(parts)


def _shape(value: dict[str, Any]) -> Shape | str:
    """Shape, or what is wrong with it."""
    kind = value.get("shape_type", "polygon")
    if not isinstance(kind, str) or kind not in _LEAST:
        return f"shape_type {shown(kind)} is unknown (known: {', '.join(_LEAST)})"
    points = pairs(value.get("points"))
    if points is None:
        return "points are not a list of pairs of finite numbers"
    if len(points) < _LEAST[kind]:
        return f"the {kind} has {len(points)} points, not {_LEAST[kind]} or more"
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return Box(float(left), float(top), float(right - left), float(bottom - top))
    if kind in ("polygon", "rectangle", "oriented_rectangle"):
        return Polygon((points,))
    if kind == "circle":
        (x, y), radius = points[0], float(np.hypot(*(points[1] - points[0])))
        return Ellipse(float(x), float(y), radius, radius)
    if kind == "mask":
        return _mask(value.get("mask"), points)
    return Polyline(points) if kind in ("line", "linestrip") else Points(points)


def _mask(value: Any, points: Floats) -> Shape | str:
    """Mask from a PNG, whose first and last pixel are the two points."""
    content = _base64(value) if isinstance(value, str) else None
    if content is None:
        return "mask is not a base64 text"
    (left, top), (right, bottom) = np.rint(points[:2]).astype(np.int64).tolist()
    size = (right - left + 1, bottom - top + 1)
    try:
        with open_image(io.BytesIO(content)) as image:
            # The last pixel belongs to the mask in files of LabelMe 5; a size without it is
            # accepted too, as other writers leave it out.
            if image.size not in (size, (size[0] - 1, size[1] - 1)):
                return f"the mask is {image.size[0]}×{image.size[1]}, its points say {size}"
            if image.size[0] * image.size[1] > MAX_PIXELS:
                return "the mask is too large to decode safely"
            pixels: Pixels = np.where(np.asarray(image.convert("L")) > 0, 255, 0).astype(np.uint8)
    except Exception as error:  # Pillow's plugins raise many types of exceptions
        return f"the mask cannot be decoded ({' '.join(str(error).split())[:80]})"
    return Mask(pixels, left, top)


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
