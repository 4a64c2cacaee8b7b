"""LabelMe's JSON files, one per image."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from preceptor.annotations.files import (
    files_of,
    points_of,
    read_json,
    shown,
    size_of,
    split_of,
    split_of_folders,
    text_of,
)
from preceptor.annotations.shapes import (
    MAX_PIXELS,
    AnnotatedImage,
    Annotation,
    Box,
    Ellipse,
    Floats,
    ImportedAnnotations,
    Log,
    Mask,
    Points,
    Polygon,
    Polyline,
    Shape,
)
from preceptor.data.images import open_image
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
    """LabelMe: polygons, rectangles, circles, lines, points and masks.

    A file without shapes says that somebody examined the image. One flag that is set gives the
    image its class. Images of the folder without a JSON file belong to the source. The split is
    that of the folder.

    Args:
        source: JSON files, or a folder with them.

    Raises:
        InputError: There is no such file.
    """
    paths = files_of(source, ".json")
    first = Path(source if isinstance(source, str | Path) else source[0])
    root = first if first.is_dir() else first.parent

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path in paths:
            of = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            try:
                yield _image(read_json(path), path, of, log)
            except (InputError, ValueError) as error:
                log.error(of, error, "correct it, or export it again", path)

    return ImportedAnnotations("labelme", root, read, (), (), len(paths), whole_folder=True)


def _image(value: Any, path: Path, of: str, log: Log) -> AnnotatedImage:
    """Image of a file."""
    if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
        raise ValueError("it is not a LabelMe file, which has `shapes`; remove it from the folder")
    name = value.get("imagePath")
    if not isinstance(name, str) or not name:
        raise ValueError(f"imagePath is {shown(name)}; write the name of the image file")
    size = size_of(value.get("imageWidth"), value.get("imageHeight"))
    shapes: list[Annotation] = []
    for row, one in enumerate(value["shapes"]):
        where = f"shapes[{row}]"
        try:
            if not isinstance(one, dict):
                raise ValueError(f"{shown(one)} is not an object")
            shapes.append(Annotation(_shape(one), text_of(one.get("label")).strip(), where=where))
        except ValueError as error:
            log.problem(f"{of}, {where}", str(error), "correct or remove the shape")
    flags = value.get("flags")
    folder = PurePosixPath(of).parent
    return AnnotatedImage(
        _from_root(folder, name),
        size,
        tuple(shapes),
        tuple(key for key, on in flags.items() if on is True) if isinstance(flags, dict) else (),
        # The source itself may be the folder of a split.
        split_of_folders(PurePosixPath(of)) or split_of(path.parent.name),
        True,
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


def _shape(value: dict[str, Any]) -> Shape:
    """Shape of an object."""
    kind = value.get("shape_type", "polygon")
    if not isinstance(kind, str) or kind not in _LEAST:
        raise ValueError(f"shape_type {shown(kind)} is unknown (known: {', '.join(_LEAST)})")
    points = points_of(value.get("points"), _LEAST[kind])
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return Box(float(left), float(top), float(right - left), float(bottom - top))
    if kind in ("polygon", "rectangle", "oriented_rectangle"):
        return Polygon((points,))
    if kind == "circle":
        (x, y), radius = points[0], float(np.hypot(*(points[1] - points[0])))
        return Ellipse(float(x), float(y), radius, radius)
    if kind == "mask":
        return _mask(_base64(value.get("mask"), "mask"), points)
    return Polyline(points) if kind in ("line", "linestrip") else Points(points)


def _mask(content: bytes, points: Floats) -> Mask:
    """Mask from a PNG, whose first and last pixel are the two points."""
    if np.abs(points).max() > 1e9:
        raise ValueError("the corners of the mask are no places in an image")
    (left, top), (right, bottom) = np.rint(points[:2]).astype(np.int64).tolist()
    size = (right - left + 1, bottom - top + 1)
    try:
        with open_image(io.BytesIO(content)) as image:
            # LabelMe 5 counts the last pixel; other writers leave it out.
            if image.size not in (size, (size[0] - 1, size[1] - 1)):
                raise ValueError(f"it is {image.size[0]}×{image.size[1]}, its points say {size}")
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise ValueError("it is too large to decode safely")
            pixels = np.where(np.asarray(image.convert("L")) > 0, 255, 0).astype(np.uint8)
    except Exception as error:  # Pillow's plugins raise many types of exceptions
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"the mask cannot be decoded ({reason})") from None
    return Mask(pixels, left, top)


def _base64(text: Any, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {shown(text)}, not base64 text") from None
