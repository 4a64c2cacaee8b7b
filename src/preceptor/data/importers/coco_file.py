"""Content of a COCO file: images, classes, and shapes in flat arrays."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.importers.json_stream import JsonStream
from preceptor.data.importers.json_values import number, shown, size_of, text_of, whole
from preceptor.data.importers.shapes import MAX_PIXELS, Log
from preceptor.data.importers.split_words import split_in
from preceptor.errors import InputError

BOX, POLYGON, RLE = 0, 1, 2


# Bound of the numbers of images and classes: they are kept in 64 bits.
_ID = 2**62


@dataclass
class CocoShapes:
    """Shapes in flat arrays: a million of them as objects would fill the memory.

    Args:
        image, category: Numbers of the image and the class; row: number in the file.
        kind: `BOX`, `POLYGON` or `RLE`.
        first_ring: Ring of a polygon, box, or index in `rle`.
        rings: Number of rings.
        ring_start: Start of each ring in `numbers`.
        numbers: Coordinates.
        rle: Height, width and counts or string of each encoded mask.
    """

    image: array[int] = field(default_factory=lambda: array("q"))
    category: array[int] = field(default_factory=lambda: array("q"))
    row: array[int] = field(default_factory=lambda: array("q"))
    kind: array[int] = field(default_factory=lambda: array("b"))
    first: array[int] = field(default_factory=lambda: array("q"))
    rings: array[int] = field(default_factory=lambda: array("q"))
    ring_start: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    rle: list[tuple[int, int, Any]] = field(default_factory=list)


@dataclass
class CocoFile:
    """Content of one file."""

    path: Path
    split: str
    images: list[tuple[int, str, tuple[int, int] | None]] = field(default_factory=list)
    classes: dict[int, str] = field(default_factory=dict)
    shapes: CocoShapes = field(default_factory=CocoShapes)
    log: Log = field(default_factory=Log)


def read_coco_file(path: Path) -> CocoFile:
    """Content of a file.

    Args:
        path: JSON file.

    Raises:
        InputError: It cannot be read, or is not of this format; problems of single rows are in its
            log.
    """
    file = CocoFile(path, split_in(path))
    seen: set[str] = set()
    with JsonStream(path) as stream:
        if stream.peek() == "[":
            raise InputError(
                f"{path}: it is a list, as the results of a detector are; name the file with the "
                "keys images, annotations and categories"
            )
        if stream.peek() != "{":
            raise InputError(
                f"{path}: it is not a COCO file (a JSON object); export COCO instances"
            )
        for key in stream.items():
            if key not in ("images", "annotations", "categories"):
                stream.value()
                continue
            if key in seen:
                raise InputError(f"{path}: the key {key!r} occurs twice; export the file again")
            seen.add(key)
            if stream.peek() != "[":
                raise InputError(f"{path}: {key} is not a list; export the file again")
            take = {"images": _image, "annotations": _annotation, "categories": _category}[key]
            for row, value in enumerate(stream.elements()):
                take(file, row, value)
        stream.end()
    if missing := {"images", "annotations", "categories"} - seen:
        raise InputError(
            f"{path}: it is not a COCO file: {' and '.join(sorted(missing))} missing; export it as "
            "COCO instances"
        )
    return file


def _image(file: CocoFile, row: int, value: Any) -> None:
    where = f"images[{row}]"
    if not isinstance(value, dict):
        file.log.problem(where, f"{shown(value)} is not an object", "export the file again")
        return
    known, name = whole(value.get("id")), value.get("file_name")
    if known is None or abs(known) >= _ID:
        file.log.problem(where, f"id is {shown(value.get('id'))}", "write a whole number below 2⁶²")
        return
    if not isinstance(name, str) or not name:
        file.log.problem(where, f"file_name is {shown(name)}", "write the name of the image file")
        return
    stated = value.get("width"), value.get("height")
    size = size_of(*stated)
    if size is None and stated != (None, None):
        what = f"width and height are {shown(stated[0])} and {shown(stated[1])}"
        file.log.problem(f"{where} {name}", what, "write whole numbers above 0, or neither")
    file.images.append((known, name, size))


def _category(file: CocoFile, row: int, value: Any) -> None:
    known = whole(value.get("id")) if isinstance(value, dict) else None
    name = text_of(value.get("name")).strip() if isinstance(value, dict) else ""
    if known is None or not name:
        what = f"{shown(value)} has no id or no name"
        file.log.problem(f"categories[{row}]", what, "write a whole number and a name")
    elif known in file.classes:
        what = f"the id {known} occurs twice"
        file.log.problem(f"categories[{row}]", what, "give each class an id of its own")
    else:
        file.classes[known] = name


def _annotation(file: CocoFile, row: int, value: Any) -> None:
    shapes = file.shapes
    try:
        image, category = value["image_id"], value["category_id"]
        segmentation = value.get("segmentation")
    except (TypeError, KeyError, AttributeError):
        what = "it has no image_id or no category_id"
        file.log.problem(f"annotations[{row}]", what, "export the file again")
        return
    if type(image) is not int or type(category) is not int or max(abs(image), abs(category)) >= _ID:
        image, category = whole(image), whole(category)
        if image is None or category is None or max(abs(image), abs(category)) >= _ID:
            what = "image_id or category_id is not a whole number below 2⁶²"
            file.log.problem(f"annotations[{row}]", what, "export the file again")
            return
    if type(segmentation) is list and segmentation:
        why = _add_polygon(shapes, segmentation)
        kind = POLYGON
    elif isinstance(segmentation, dict):
        why = _add_rle(shapes, segmentation)
        kind = RLE
    elif segmentation is None or segmentation == []:
        why = _add_box(shapes, value.get("bbox"))
        kind = BOX
        if "keypoints" in value and not why:
            file.log.note("keypoints are read as the box around them")
    else:
        why = f"segmentation is {shown(segmentation)}"
    if why:
        fix = "correct or remove the annotation"
        file.log.problem(f"annotations[{row}] of image {image}", why, fix)
        return
    shapes.image.append(image)
    shapes.category.append(category)
    shapes.row.append(row)
    shapes.kind.append(kind)


def _add_polygon(shapes: CocoShapes, rings: list[Any]) -> str:
    """Append a polygon; returns what is wrong with it, or ""."""
    first, start = len(shapes.ring_start), len(shapes.numbers)
    for ring in rings:
        if type(ring) is not list or len(ring) < 6 or len(ring) % 2:
            wrong = "a ring of the segmentation is not a list of 3 or more x, y pairs"
        else:
            shapes.ring_start.append(len(shapes.numbers))
            try:
                shapes.numbers.extend(ring)
                continue
            except (TypeError, OverflowError):
                wrong = "a coordinate of the segmentation is not a number"
        del shapes.ring_start[first:]
        del shapes.numbers[start:]
        return wrong
    shapes.first.append(first)
    shapes.rings.append(len(rings))
    return ""


def _add_box(shapes: CocoShapes, box: Any) -> str:
    if not isinstance(box, list) or len(box) != 4 or any(number(one) is None for one in box):
        return f"bbox is {shown(box)}, not x, y, width, height"
    if not (box[2] > 0 and box[3] > 0):
        return f"the box is empty ({box[2]:g} × {box[3]:g})"
    shapes.first.append(len(shapes.ring_start))
    shapes.rings.append(1)
    shapes.ring_start.append(len(shapes.numbers))
    shapes.numbers.extend(box)
    return ""


def _add_rle(shapes: CocoShapes, rle: dict[str, Any]) -> str:
    size, counts = rle.get("size"), rle.get("counts")
    stated = size_of(size[1], size[0]) if isinstance(size, list) and len(size) == 2 else None
    if stated is None:
        return f"size of the segmentation is {shown(size)}, not height, width"
    if stated[0] * stated[1] > MAX_PIXELS:
        return f"the mask is {stated[0]}×{stated[1]}, which is too large to decode safely"
    if isinstance(counts, str):
        held: Any = counts.encode("utf-8")
    elif isinstance(counts, list) and all(type(one) is int for one in counts):
        try:
            held = np.array(counts, np.int64)
        except OverflowError:
            return "a count of the segmentation is too large"
    else:
        return "counts of the segmentation are neither a list of whole numbers nor a string"
    shapes.first.append(len(shapes.rle))
    shapes.rings.append(0)
    shapes.rle.append((*stated, held))
    return ""
