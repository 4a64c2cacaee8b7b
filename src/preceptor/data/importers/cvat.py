"""Importer of CVAT's XML 1.1 for images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from preceptor.data.importers.coco_rle import decode_counts
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
    Points,
    Polygon,
    Polyline,
    Shape,
)
from preceptor.data.importers.split_words import split_of
from preceptor.data.importers.xml_file import finite_number, iterate_xml
from preceptor.errors import InputError

_SHAPES = ("box", "polygon", "polyline", "ellipse", "points", "mask")
_FIX = "correct or remove the shape"


def read_cvat(source: Path | str) -> ImportedAnnotations:
    """CVAT's XML 1.1 for images: boxes with rotation, polygons, polylines, ellipses, points, masks.

    Shapes with `source="auto"` are predictions. Annotators are not part of the file. The subset of
    an image gives its split if it has such a name. A tag without shapes gives an image its class.

    Args:
        source: XML file (`annotations.xml` of the exported archive), or a folder with it.

    Raises:
        InputError: The file cannot be read, is not of this format, or has XML entities.
    """
    path = Path(source)
    if path.is_dir():
        files = [path / "annotations.xml"] if (path / "annotations.xml").is_file() else []
        files = files or sorted(path.glob("*.xml"))
        if len(files) != 1:
            raise InputError(f"{path}: there are {len(files)} XML files in it; name one")
        path = files[0]
    classes: dict[str, None] = {}
    for element in iterate_xml(path, ("label", "track", "image"), root="annotations"):
        if element.tag == "track":
            raise InputError(
                f"{path}: it is of a video (CVAT for video); export as CVAT for images 1.1"
            )
        if element.tag == "image":  # the classes stand before
            break
        if name := (element.findtext("name") or "").strip():
            classes[name] = None

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for row, element in enumerate(iterate_xml(path, ("image",), root="annotations")):
            record = _image(element, row, log)
            if record is not None:
                yield record

    return ImportedAnnotations("cvat", path, read, classes=list(classes), annotators=())


def _image(element: Element, row: int, log: Log) -> AnnotatedImage | None:
    name = element.get("name") or ""
    where = f"image {element.get('id', row)}"
    if not name:
        log.problem(where, "it has no name", "export the file again")
        return None
    size = _whole(element.get("width")), _whole(element.get("height"))
    if not size[0] or not size[1]:
        what = f"width and height are {element.get('width')!r} and {element.get('height')!r}"
        log.problem(f"{where} {name}", what, "write whole numbers above 0")
        return None
    found: list[Annotation] = []
    tags: list[str] = []
    for number, child in enumerate(element):
        place = f"{child.tag} {number + 1}"
        if child.tag == "tag":
            tags.append(child.get("label") or "")
            continue
        if child.tag not in _SHAPES:
            log.note(f"elements <{child.tag}> are not read")
            continue
        shape = _shape(child, (size[0], size[1]))
        if isinstance(shape, str):
            log.problem(f"{where} {name}, {place}", shape, _FIX)
            continue
        made = child.get("source") == "auto"
        found.append(Annotation(shape, child.get("label") or "", prediction=made, where=place))
    labels = tuple(sorted(set(tags) - {""}))
    split = split_of(element.get("subset") or "")
    examined = True if labels else None
    return AnnotatedImage(
        name, (size[0], size[1]), tuple(found), labels, split, examined, where=where
    )


def _shape(element: Element, size: tuple[int, int]) -> Shape | str:
    """Shape of an element, or what is wrong with it."""
    match element.tag:
        case "box":
            found = _numbers(element, "xtl", "ytl", "xbr", "ybr", rotation=0)
            if isinstance(found, str):
                return found
            left, top, right, bottom, turned = found
            return Box(left, top, right - left, bottom - top, turned)
        case "ellipse":
            found = _numbers(element, "cx", "cy", "rx", "ry", rotation=0)
            return found if isinstance(found, str) else Ellipse(*found)
        case "mask":
            return _mask(element, size)
    points = _points(element.get("points"))
    least = {"polygon": 3, "polyline": 2, "points": 1}[element.tag]
    if points is None or len(points) < least:
        return f"points are {(element.get('points') or '')[:60]!r}, not {least} or more x,y;x,y"
    if element.tag == "polygon":
        return Polygon((points,))
    return Polyline(points) if element.tag == "polyline" else Points(points)


def _mask(element: Element, size: tuple[int, int]) -> Shape | str:
    """Mask: counts row by row in a rectangle of the image, beginning with outside."""
    found = _numbers(element, "left", "top", "width", "height")
    if isinstance(found, str):
        return found
    left, top, width, height = map(int, found)
    if [left, top, width, height] != found or width < 1 or height < 1 or min(left, top) < 0:
        return "left, top, width and height are not whole numbers"
    if width * height > MAX_PIXELS or left + width > size[0] or top + height > size[1]:
        return f"the mask of {width}×{height} at {left}, {top} does not fit into the image"
    counts = [_whole(one) for one in (element.get("rle") or "").split(",")]
    if any(one is None for one in counts):
        return "rle is not a list of whole numbers"
    try:
        # The same encoding as in COCO files, but row by row: of the transposed mask.
        return Mask(decode_counts([one or 0 for one in counts], height, width).T.copy(), left, top)
    except (ValueError, OverflowError) as error:
        return str(error)


def _numbers(element: Element, *names: str, **defaults: float) -> list[float] | str:
    found: list[float] = []
    for name in (*names, *defaults):
        text = element.get(name)
        if text is None and name in defaults:
            found.append(defaults[name])
            continue
        value = finite_number(text)
        if value is None:
            return f"{name} is {text!r}, not a finite number"
        found.append(value)
    return found


def _whole(text: Any) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _points(text: str | None) -> Floats | None:
    """(n, 2) points of "x,y;x,y"."""
    pairs = [pair.split(",") for pair in (text or "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        return None
    values = [finite_number(one) for pair in pairs for one in pair]
    if any(one is None for one in values):
        return None
    return np.array(values, np.float64).reshape(-1, 2)
