"""Formats in JSON: COCO instances, Label Studio's export and LabelMe, with their encoded masks."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from preceptor.annotations.files import (
    Sources,
    files_of,
    number,
    paths_of,
    points_of,
    read_json,
    shown,
    size_of,
    split_in,
    split_of,
    split_of_folders,
    text_of,
    whole,
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
    Pixels,
    Points,
    Polygon,
    Polyline,
    Shape,
    rotate,
)
from preceptor.data.images import open_image
from preceptor.errors import InputError, reason

_AGAIN = "correct it, or export the file again"
# 5 bits a character, from "0" on; 32 is added if more of the same count follow.
_COUNTS = re.compile("(?:[P-o]{0,6}[0-O])*")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not an object")
    return value


def read_coco(source: Sources) -> ImportedAnnotations:
    """COCO; an annotation is its segmentation (polygons or run lengths), key points or box.

    Of a folder with files `instances*.json`, only these are read. The split is in the name of the
    file or its folder ("instances_val2017.json", "valid/_annotations.coco.json").
    """
    files = {path: read_json(path) for path in files_of(source, ".json", first="instances")}
    keys = ("images", "annotations", "categories")
    for path, content in files.items():
        lists = content if isinstance(content, dict) else {}
        if missing := [key for key in keys if not isinstance(lists.get(key), list)]:
            what = f"it is not a COCO file, which has lists of {', '.join(keys)}"
            raise InputError(
                f"{path}: {what}: {' and '.join(missing)} missing; export it as COCO instances"
            )

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path, content in files.items():
            of = str(path) if len(files) > 1 else ""
            yield from _coco_images(content, split_in(path), of, log)

    named = (one for file in files.values() for one in file["categories"] if isinstance(one, dict))
    classes = [*dict.fromkeys(text_of(one.get("name")).strip() for one in named)]
    count = sum(len(content["images"]) for content in files.values())
    return ImportedAnnotations(
        "coco", paths_of(source)[0], read, [name for name in classes if name], (), count
    )


def _coco_images(
    content: dict[str, list[Any]], split: str, of: str, log: Log
) -> Iterator[AnnotatedImage]:
    prefix = f"{of}, " if of else ""
    classes: dict[int, str] = {}
    for row, value in enumerate(content["categories"]):
        fix = "give each class a name and a whole number of its own"
        with log.part(f"{prefix}categories[{row}]", fix):
            known, name = whole(_object(value).get("id"), "id"), text_of(value.get("name")).strip()
            if not name or known in classes:
                what = f"the id {known} occurs twice" if name else f"{shown(value)} has no name"
                raise ValueError(what)
            classes[known] = name
    by_image: dict[int, list[int]] = {}
    for row, value in enumerate(content["annotations"]):
        with log.part(f"{prefix}annotations[{row}]", _AGAIN):
            by_image.setdefault(whole(_object(value).get("image_id"), "image_id"), []).append(row)
    seen: set[int] = set()
    for row, value in enumerate(content["images"]):
        where = f"images[{row}]"
        with log.part(f"{prefix}{where}", _AGAIN):
            image, name = whole(_object(value).get("id"), "id"), value.get("file_name")
            if not isinstance(name, str) or not name:
                raise ValueError(f"file_name is {shown(name)}, not the name of an image file")
            if image in seen:
                raise ValueError(f"the id {image} occurs twice")
            size = size_of(value.get("width"), value.get("height"))
            seen.add(image)
            shapes: list[Annotation] = []
            for index in by_image.pop(image, []):
                spot, one = f"annotations[{index}]", content["annotations"][index]
                with log.part(f"{prefix}{spot} of {name}", "correct or remove the annotation"):
                    category = whole(one.get("category_id"), "category_id")
                    if category not in classes:
                        raise ValueError(f"there is no category {category}")
                    shape = _coco_shape(one, size)
                    shapes.append(Annotation(shape, classes[category], where=spot))
            masks = (one.shape.pixels for one in shapes if isinstance(one.shape, Mask))
            size = size or next(((mask.shape[1], mask.shape[0]) for mask in masks), None)
            yield AnnotatedImage(name, size, tuple(shapes), split=split, where=where, of=of)
    for image, rows in by_image.items():
        for row in rows:
            what = f"there is no image with the id {image}"
            log.problem(f"{prefix}annotations[{row}]", what, "add it, or remove the annotation")


def _coco_shape(value: dict[str, Any], size: tuple[int, int] | None) -> Shape:
    segmentation = value.get("segmentation")
    if isinstance(segmentation, list) and (rings := [one for one in segmentation if one != []]):
        return Polygon(tuple(points_of(ring, 3) for ring in rings))
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if not isinstance(stated, list) or len(stated) != 2 or None in stated:
            raise ValueError(f"size of the segmentation is {shown(stated)}, not height, width")
        width, height = size_of(stated[1], stated[0]) or (0, 0)
        if size is not None and size != (width, height):
            raise ValueError(f"the mask is {width}×{height}, the image {size[0]}×{size[1]}")
        return Mask(decode_rle(segmentation.get("counts"), width, height))
    if segmentation is not None and not isinstance(segmentation, list):
        raise ValueError(f"segmentation is {shown(segmentation)}")
    if keys := value.get("keypoints"):  # x, y and 0 (not marked), 1 (hidden) or 2
        if not isinstance(keys, list) or len(keys) % 3:
            raise ValueError(f"keypoints are {shown(keys)}, not x, y, visibility for each")
        seen = [keys[at : at + 2] for at in range(0, len(keys), 3) if keys[at + 2]]
        if seen:
            return Points(points_of(seen, 1))
    box = value.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox is {shown(box)}, not x, y, width, height")
    attributes = value.get("attributes")  # CVAT writes the box before it was turned
    turned = attributes.get("rotation", 0) if isinstance(attributes, dict) else 0
    x, y, wide, high = (number(one, "a number of bbox") for one in box)
    return Box(x, y, wide, high, number(turned, "rotation"))


def decode_rle(counts: Any, width: int, height: int) -> Pixels:
    """(height, width) mask of 0 and 255 of COCO's counts, column by column, or of their text.

    Example:
        >>> decode_rle([1, 2, 3], 3, 2).tolist(), decode_rle("123", 3, 2).tolist()
        ([[0, 255, 0], [255, 0, 0]], [[0, 255, 0], [255, 0, 0]])
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"the mask is {width}×{height}, which is too large to decode safely")
    if isinstance(counts, str) and _COUNTS.fullmatch(counts):
        runs: list[int] = []
        value = shift = 0
        for code in counts.encode("ascii"):
            value |= (code - 48 & 31) << shift
            shift += 5
            if code < 80:
                value -= (code - 48 >> 4 & 1) << shift
                # From the fourth on, they are differences to two places before.
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value = shift = 0
    elif isinstance(counts, list):
        runs = [whole(one, "a count") for one in counts]
    else:
        raise ValueError(f"counts are {shown(counts)}, neither whole numbers nor compressed text")
    if any(one < 0 for one in runs) or sum(runs) != width * height:
        raise ValueError(f"the counts do not add up to {width} × {height} pixels")
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


_SHAPES = ("rectangle", "polygon", "ellipse", "brush", "keypoint")
# Keys of a value that is of a region; a choice that has one belongs to the region alone.
_GEOMETRY = {"x", "y", "points", "rle", "vertices", "sequence", "start", "end"}
_IMAGE_KEYS = ("image", "img", "url", "ocr")


def read_labelstudio(source: Sources) -> ImportedAnnotations:
    """Label Studio's JSON export (not JSON_MIN), with the image under a key of `data`.

    Coordinates are percent of `original_width` and `original_height`; a rectangle turns about its
    upper left corner. A task with an annotation that was not cancelled was examined.
    """
    paths = files_of(source, ".json")

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path in paths:
            of = str(path) if len(paths) > 1 else ""
            tasks = read_json(path)
            if not isinstance(tasks, list):
                what = "it is not a Label Studio export, which is a list of tasks; export as JSON"
                raise InputError(f"{path}: {what}")
            for row, task in enumerate(tasks):
                where = f"tasks[{row}]"
                with log.part(f"{of}, {where}" if of else where, "export it again"):
                    yield _Task(task, where, of, log).image()

    return ImportedAnnotations("labelstudio", paths_of(source)[0], read)


class _Task:
    """One task of an export of Label Studio."""

    def __init__(self, task: Any, where: str, of: str, log: Log) -> None:
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise ValueError(f"{shown(task)} has no `data`; export as JSON, not as JSON_MIN")
        self.task, self.where, self.of, self.log = task, where, of, log
        self.size: tuple[int, int] | None = None
        self.labels: list[str] = []
        self.keys: set[str] = set()
        self.shapes: list[Annotation] = []

    def image(self) -> AnnotatedImage:
        """Image of the task."""
        persons: list[str] = []
        done = self.task.get("annotations")
        for place, one in enumerate(done if isinstance(done, list) else []):
            holder = one if isinstance(one, dict) else {}
            if holder.get("was_cancelled"):
                self.log.note("annotations that were skipped are not read")
                continue
            person = holder.get("completed_by")
            if isinstance(person, dict):
                person = person.get("email") or person.get("username") or person.get("id")
            persons.append(text_of(person))
            self._results(one, f"annotations[{place}]", persons[-1])
        return AnnotatedImage(
            self._name(),
            self.size,
            tuple(self.shapes),
            tuple(self.labels),
            examined=bool(persons) if isinstance(done, list) else None,
            annotators=tuple(dict.fromkeys(filter(None, persons))),
            where=self.where,
            of=self.of,
        )

    def _name(self) -> str:
        """Address of the image in the data."""
        data = {key: value for key, value in self.task["data"].items() if isinstance(value, str)}
        keys = (
            sorted(self.keys & set(data))
            or [key for key in _IMAGE_KEYS if key in data]
            or list(data)
        )
        keys = [key for key in keys if data.get(key)]
        if len(keys) == 1 or (keys and keys[0] in _IMAGE_KEYS):
            return data[keys[0]]
        raise ValueError(
            f"there is no image in data (keys: {', '.join(self.task['data']) or 'none'}); export "
            "tasks of one image each"
        )

    def _results(self, holder: Any, where: str, person: str) -> None:
        place = ", ".join(filter(None, (self.of, self.where, where)))
        results = holder.get("result") if isinstance(holder, dict) else None
        if not isinstance(results, list):
            what = f"{shown(holder)} has no list of results"
            self.log.problem(place, what, "correct or remove it")
            return
        kinds = [_kind(one) for one in results]
        ids = [text_of(one.get("id")) if isinstance(one, dict) else "" for one in results]
        shapes = {known for known, kind in zip(ids, kinds, strict=True) if kind in _SHAPES} - {""}
        for row, (result, known, kind) in enumerate(zip(results, ids, kinds, strict=True)):
            spot = f"{where}.result[{row}]"
            with self.log.part(f"{place}.result[{row}]", "correct or remove the result"):
                value = result.get("value") if isinstance(result, dict) else None
                if not kind:
                    raise ValueError(f"{shown(result)} has no type")
                if kind == "choices" and isinstance(value, dict):
                    self._choices(value, known in shapes)
                elif kind == "labels":
                    raise ValueError("the tag Labels is not read; use RectangleLabels and the like")
                elif kind in ("bitmask", "vector"):  # else their image would have no shape
                    raise ValueError(f"{result['type']} is not read; mark it with another tool")
                elif kind not in _SHAPES or not isinstance(value, dict):
                    self.log.note(f"results of the type {result['type']!r} are not read")
                else:
                    shape = self._shape(kind, value, result)
                    self.shapes.append(Annotation(shape, _label(value), person, spot))

    def _choices(self, value: dict[str, Any], of_shape: bool) -> None:
        if of_shape or _GEOMETRY & set(value):
            self.log.note("choices that belong to a single shape are not read")
            return
        chosen = value.get("choices")
        if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
            raise ValueError(f"choices are {shown(chosen)}; export it again")
        self.labels += chosen

    def _shape(self, kind: str, value: dict[str, Any], result: dict[str, Any]) -> Shape:
        if isinstance(result.get("to_name"), str):
            self.keys.add(result["to_name"])
        size = size_of(result.get("original_width"), result.get("original_height"))
        if size is None:
            raise ValueError("it has no original_width and original_height; export it again")
        if size != (self.size or size):
            raise ValueError(f"it is for another size of the image, {size[0]}×{size[1]}")
        self.size = size
        if turned := number(result.get("image_rotation") or 0, "image_rotation"):
            what = f"the image was turned by {turned:g}° in the editor, which is not read"
            raise ValueError(what)
        if kind == "polygon":
            return Polygon((points_of(value.get("points"), 3) * (np.array(size) / 100),))
        if kind == "brush":
            return Mask(decode_brush(value.get("rle"), *size))

        def pixels(across: str, down: str) -> list[float]:
            pair = zip((across, down), size, strict=True)
            return [number(value.get(name), name) * (side / 100) for name, side in pair]

        x, y = pixels("x", "y")
        rotation = number(value.get("rotation", 0), "rotation")
        if kind == "keypoint":
            return Points(np.array([[x, y]]))  # its width is that of the dot in the editor
        if kind == "ellipse":
            radius_x, radius_y = pixels("radiusX", "radiusY")
            return Ellipse(x, y, radius_x, radius_y, rotation)
        wide, high = pixels("width", "height")
        middle = rotate(np.array([[x + wide / 2, y + high / 2]]), (x, y), rotation)[0].tolist()
        return Box(middle[0] - wide / 2, middle[1] - high / 2, wide, high, rotation)


def _kind(result: Any) -> str:
    """Kind of a result, "" if it has none: `rectanglelabels` and `rectangle` are one."""
    kind = result.get("type") if isinstance(result, dict) else None
    kind = kind.lower() if isinstance(kind, str) else ""
    return kind.removesuffix("labels") if kind != "labels" else kind


def _label(value: dict[str, Any]) -> str:
    """Class of a shape, "" if it has none."""
    for key, labels in value.items():
        if key.endswith("labels") and isinstance(labels, list) and labels:
            if len(labels) > 1:
                raise ValueError("it has several classes; give a shape one class")
            return text_of(labels[0])
    return ""


def decode_brush(rle: Any, width: int, height: int) -> Pixels:
    """Opacity, uint8 of shape (height, width), of a brush stroke in bytes from 0 to 255.

    The RGBA pixels are packed bit by bit: 32 bits for the number of values, 5 for the bits of a
    value minus 1, four times 4 for the bits of run lengths minus 1; then blocks with 1 bit (1 = one
    value repeated, 0 = values listed), 2 bits for the kind of length, the length minus 1, values.
    """
    try:
        data = bytes(rle) if isinstance(rle, list) else None
    except (TypeError, ValueError, OverflowError):
        data = None
    if data is None:
        raise ValueError("the RLE is not a list of whole numbers from 0 to 255")
    total = 4 * width * height
    if total > 4 * MAX_PIXELS or int.from_bytes(data[:4]) != total:
        raise ValueError(
            f"the RLE has {int.from_bytes(data[:4]):,} values, not 4 × {width} × {height}, as "
            "the image has another size"
        )
    # Text, since int() of a slice is the fastest way to read a few bits.
    text = (np.unpackbits(np.frombuffer(data, np.uint8)) + np.uint8(48)).tobytes()
    at = 32

    def take(bits: int) -> int:
        nonlocal at
        at += bits
        if at > len(text):
            raise ValueError("the RLE is cut short")
        return int(text[at - bits : at], 2)

    word, sizes = take(5) + 1, [take(4) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(f"the RLE has values of {word} bits, not of 8")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_repeated, size = take(1), sizes[take(2)]
        length = take(size) + 1
        if done + length > total:
            raise ValueError("the runs of the RLE are longer than the image")
        values[done : done + length] = (
            take(word) if is_repeated else [take(word) for _ in range(length)]
        )
        done += length
    return np.ascontiguousarray(values[3::4].reshape(height, width))


# Smallest number of points of each shape.
_LEAST = dict.fromkeys(("polygon", "oriented_rectangle"), 3)
_LEAST |= dict.fromkeys(("rectangle", "circle", "line", "linestrip", "mask"), 2)
_LEAST |= dict.fromkeys(("point", "points"), 1)


def read_labelme(source: Sources) -> ImportedAnnotations:
    """LabelMe's JSON files, one per image; a flag that is set gives the image its class.

    A file without shapes says that somebody examined the image; one without a file is in no class.
    """
    paths = files_of(source, ".json")
    first = paths_of(source)[0]
    root = first if first.is_dir() else first.parent

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path in paths:
            of = path.relative_to(root) if path.is_relative_to(root) else path
            with log.part(of.as_posix(), _AGAIN, path):
                # The source itself may be the folder of a split.
                split = split_of_folders(of) or split_of(path.parent.name)
                yield _labelme_image(read_json(path), of.as_posix(), split, log)

    return ImportedAnnotations("labelme", root, read, (), (), len(paths), whole_folder=True)


def _labelme_image(value: Any, of: str, split: str, log: Log) -> AnnotatedImage:
    if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
        raise ValueError("it is not a LabelMe file, which has `shapes`; remove it from the folder")
    name = value.get("imagePath")
    if not isinstance(name, str) or not name:
        raise ValueError(f"imagePath is {shown(name)}; write the name of the image file")
    parts: list[str] = []  # of the path from the root, without leading `..`
    for part in (PurePosixPath(of).parent / name.replace("\\", "/")).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    size = size_of(value.get("imageWidth"), value.get("imageHeight"))
    shapes: list[Annotation] = []
    for row, one in enumerate(value["shapes"]):
        where = f"shapes[{row}]"
        with log.part(f"{of}, {where}", "correct or remove the shape"):
            label = text_of(_object(one).get("label")).strip()
            shapes.append(Annotation(_labelme_shape(one), label, where=where))
    flags = value["flags"] if isinstance(value.get("flags"), dict) else {}
    labels = tuple(key for key, on in flags.items() if on is True)
    return AnnotatedImage("/".join(parts), size, tuple(shapes), labels, split, True, of=of)


def _labelme_shape(value: dict[str, Any]) -> Shape:
    kind = value.get("shape_type", "polygon")
    if not isinstance(kind, str) or kind not in _LEAST:
        raise ValueError(f"shape_type {shown(kind)} is unknown (known: {', '.join(_LEAST)})")
    points = points_of(value.get("points"), _LEAST[kind])
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return Box(left, top, right - left, bottom - top)
    if kind in ("polygon", "rectangle", "oriented_rectangle"):
        return Polygon((points,))
    if kind == "circle":
        (x, y), radius = points[0].tolist(), float(np.hypot(*(points[1] - points[0])))
        return Ellipse(x, y, radius, radius)
    if kind == "mask":
        return _labelme_mask(value.get("mask"), points)
    return Polyline(points) if kind in ("line", "linestrip") else Points(points)


def _labelme_mask(text: Any, points: Floats) -> Mask:
    """Mask from a PNG in base64, whose first and last pixel are the two points."""
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise ValueError(f"mask is {shown(text)}, not base64 text") from None
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
        raise ValueError(f"the mask cannot be decoded ({reason(error, 80)})") from None
    return Mask(pixels, left, top)
