"""Importer of COCO instances: boxes, polygons and run-length encoded masks."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.importers.coco_rle import decode_counts, decode_string
from preceptor.data.importers.json_stream import JsonStream
from preceptor.data.importers.json_values import number, shown, size_of, text_of, whole
from preceptor.data.importers.shapes import (
    MAX_PIXELS,
    AnnotatedImage,
    Annotation,
    Box,
    ImportedAnnotations,
    Log,
    Mask,
    Polygon,
    Shape,
)
from preceptor.data.importers.split_words import split_in
from preceptor.errors import InputError

_BOX, _POLYGON, _RLE = 0, 1, 2
# Bound of the numbers of images and classes: they are kept in 64 bits.
_ID = 2**62


@dataclass
class _Annotations:
    """Shapes in flat arrays: a million of them as objects would fill the memory.

    Args:
        image, category: Numbers of the image and the class; row: number in the file.
        kind: `_BOX`, `_POLYGON` or `_RLE`.
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
class _File:
    """Content of one file."""

    path: Path
    split: str
    images: list[tuple[int, str, tuple[int, int] | None]] = field(default_factory=list)
    classes: dict[int, str] = field(default_factory=dict)
    shapes: _Annotations = field(default_factory=_Annotations)
    log: Log = field(default_factory=Log)


def read_coco(source: Path | str | Sequence[Path | str]) -> ImportedAnnotations:
    """COCO instances: `images`, `annotations` and `categories`.

    An annotation is read from its segmentation (polygons, whose union it is; or a run-length
    encoding), else from its box. Crowds are masks like others. The split is taken from the name of
    the file or its folder ("instances_val2017.json", "valid/_annotations.coco.json").

    Args:
        source: One or more JSON files, or a folder with them; of a folder with files
            `instances*.json`, only these.

    Raises:
        InputError: A file cannot be read or is not of this format.

    Example:
        >>> read_coco("nowhere.json")
        Traceback (most recent call last):
        preceptor.errors.InputError: nowhere.json: there is no such file; correct the path
    """
    given = [Path(source)] if isinstance(source, str | Path) else [Path(one) for one in source]
    paths = [file for path in given for file in _json_files(path)]
    files = [_read_file(path) for path in paths]
    classes = list(dict.fromkeys(name for file in files for name in file.classes.values()))

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for file in files:
            log.problems += file.log.problems
            for text, count in file.log.notes.items():
                log.note(text, count)
            yield from _images(file, log, len(files) > 1)

    return ImportedAnnotations(
        "coco",
        given[0],
        read,
        classes=classes,
        annotators=(),
        count=sum(len(file.images) for file in files),
    )


def _json_files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*.json") if not file.name.startswith("."))
        if not found:
            raise InputError(f"{path}: there is no JSON file in it; name the file of annotations")
        # Other files of a data set name the same images: captions, keypoints, panoptic segments.
        return [file for file in found if file.name.startswith("instances")] or found
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; correct the path")
    return [path]


def _read_file(path: Path) -> _File:
    file = _File(path, split_in(path))
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


def _image(file: _File, row: int, value: Any) -> None:
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


def _category(file: _File, row: int, value: Any) -> None:
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


def _annotation(file: _File, row: int, value: Any) -> None:
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
        kind = _POLYGON
    elif isinstance(segmentation, dict):
        why = _add_rle(shapes, segmentation)
        kind = _RLE
    elif segmentation is None or segmentation == []:
        why = _add_box(shapes, value.get("bbox"))
        kind = _BOX
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


def _add_polygon(shapes: _Annotations, rings: list[Any]) -> str:
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


def _add_box(shapes: _Annotations, box: Any) -> str:
    if not isinstance(box, list) or len(box) != 4 or any(number(one) is None for one in box):
        return f"bbox is {shown(box)}, not x, y, width, height"
    if not (box[2] > 0 and box[3] > 0):
        return f"the box is empty ({box[2]:g} × {box[3]:g})"
    shapes.first.append(len(shapes.ring_start))
    shapes.rings.append(1)
    shapes.ring_start.append(len(shapes.numbers))
    shapes.numbers.extend(box)
    return ""


def _add_rle(shapes: _Annotations, rle: dict[str, Any]) -> str:
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


def _images(file: _File, log: Log, several: bool) -> Iterator[AnnotatedImage]:
    shapes = file.shapes
    ids = np.frombuffer(shapes.image, np.int64)
    order: NDArray[np.int64] = np.argsort(ids, kind="stable")
    ordered = ids[order]
    numbers = np.frombuffer(shapes.numbers, np.float64)
    ring_start = np.append(np.frombuffer(shapes.ring_start, np.int64), len(numbers))
    known: set[int] = set()
    numbered = np.array([one[0] for one in file.images], np.int64)
    lefts = np.searchsorted(ordered, numbered, "left")
    rights = np.searchsorted(ordered, numbered, "right")
    of = str(file.path) if several else ""
    for row, (number_, name, size) in enumerate(file.images):
        if number_ in known:
            log.problem(f"images[{row}] {name}", f"the id {number_} occurs twice", "renumber it")
            continue
        known.add(number_)
        left, right = int(lefts[row]), int(rights[row])
        found: list[Annotation] = []
        if size is None:
            encoded = (i for i in order[left:right].tolist() if shapes.kind[i] == _RLE)
            size = next((shapes.rle[shapes.first[i]][:2] for i in encoded), None)
        for index in order[left:right].tolist():
            where = f"annotations[{shapes.row[index]}]"
            label = file.classes.get(shapes.category[index])
            if label is None:
                what = f"there is no category {shapes.category[index]}"
                log.problem(f"{where} of {name}", what, "add it to the categories")
                continue
            shape = _shape(shapes, index, numbers, ring_start, size)
            if isinstance(shape, str):
                log.problem(f"{where} of {name}", shape, "correct or remove the annotation")
                continue
            found.append(Annotation(shape, label, where=where))
        yield AnnotatedImage(
            name, size, tuple(found), split=file.split, where=f"images[{row}]", of=of
        )
    if len(ids):
        unknown = ~np.isin(ids, np.fromiter(known, np.int64, len(known)))
        for index in np.flatnonzero(unknown).tolist():
            where = f"annotations[{shapes.row[index]}]"
            what = f"there is no image with the id {shapes.image[index]}"
            log.problem(where, what, "add the image, or remove the annotation")


def _shape(
    shapes: _Annotations,
    index: int,
    numbers: NDArray[np.float64],
    ring_start: NDArray[np.int64],
    size: tuple[int, int] | None,
) -> Shape | str:
    """Shape of an annotation, or what is wrong with it."""
    first, kind = shapes.first[index], shapes.kind[index]
    if kind == _BOX:
        at = shapes.ring_start[first]
        return Box(*shapes.numbers[at : at + 4])
    if kind == _POLYGON:
        count = shapes.rings[index]
        at = ring_start[first : first + count + 1].tolist()
        rings = tuple(numbers[a:b].reshape(-1, 2) for a, b in pairwise(at))
        return Polygon(rings, "union")
    width, height, counts = shapes.rle[first]
    if size is not None and size != (width, height):
        return f"the mask is {width}×{height}, the image {size[0]}×{size[1]}"
    try:
        runs = decode_string(counts) if isinstance(counts, bytes) else counts
        return Mask(decode_counts(runs, width, height))
    except ValueError as error:
        return str(error)
