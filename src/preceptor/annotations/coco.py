"""COCO instances: boxes, polygons and run-length encoded masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.annotations.files import (
    files_below,
    files_of,
    number,
    points_of,
    read_json,
    shown,
    size_of,
    split_in,
    text_of,
    whole,
)
from preceptor.annotations.shapes import (
    MAX_PIXELS,
    AnnotatedImage,
    Annotation,
    Box,
    ImportedAnnotations,
    Log,
    Mask,
    Pixels,
    Polygon,
    Shape,
)
from preceptor.errors import InputError

_AGAIN = "export the file again"
# 5 bits a character, from "0" on; 32 is added if more of the same count follow.
_COUNTS = re.compile("(?:[P-o]{0,6}[0-O])*")


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
    paths: list[Path] = []
    for path in given:
        # Other files of a data set name the same images: captions, keypoints, panoptic segments.
        inside = files_below(path, ".json") if path.is_dir() else []
        named = [file for file in inside if file.name.startswith("instances")]
        paths += named or files_of(path, ".json")
    files = {path: _read(path) for path in paths}
    classes = [
        text_of(one.get("name")).strip()
        for content in files.values()
        for one in content["categories"]
        if isinstance(one, dict)
    ]

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path, content in files.items():
            yield from _images(content, split_in(path), str(path) if len(files) > 1 else "", log)

    return ImportedAnnotations(
        "coco",
        given[0],
        read,
        classes=[*dict.fromkeys(filter(None, classes))],
        annotators=(),
        count=sum(len(content["images"]) for content in files.values()),
    )


def _read(path: Path) -> dict[str, list[Any]]:
    content = read_json(path)
    if isinstance(content, list):
        raise InputError(
            f"{path}: it is a list, as the results of a detector are; name the file with the keys "
            "images, annotations and categories"
        )
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(
            f"{path}: it is not a COCO file: {' and '.join(missing)} missing; export it as COCO "
            "instances"
        )
    for key in keys:
        if not isinstance(content[key], list):
            raise InputError(f"{path}: {key} is not a list; {_AGAIN}")
    return {key: content[key] for key in keys}


def _images(
    content: dict[str, list[Any]], split: str, of: str, log: Log
) -> Iterator[AnnotatedImage]:
    prefix = f"{of}, " if of else ""
    classes: dict[int, str] = {}
    for row, value in enumerate(content["categories"]):
        where = f"{prefix}categories[{row}]"
        try:
            known, name = whole(_object(value).get("id"), "id"), text_of(value.get("name")).strip()
            if not name:
                raise ValueError(f"{shown(value)} has no name")
            if known in classes:
                raise ValueError(f"the id {known} occurs twice")
            classes[known] = name
        except ValueError as error:
            log.problem(where, str(error), "give each class a name and a whole number of its own")
    by_image: dict[int, list[int]] = {}
    for row, value in enumerate(content["annotations"]):
        try:
            by_image.setdefault(whole(_object(value).get("image_id"), "image_id"), []).append(row)
        except ValueError as error:
            log.problem(f"{prefix}annotations[{row}]", str(error), _AGAIN)
    seen: set[int] = set()
    for row, value in enumerate(content["images"]):
        where = f"images[{row}]"
        try:
            image, name = whole(_object(value).get("id"), "id"), value.get("file_name")
            if not isinstance(name, str) or not name:
                raise ValueError(f"file_name is {shown(name)}, not the name of an image file")
            if image in seen:
                raise ValueError(f"the id {image} occurs twice")
            size = size_of(value.get("width"), value.get("height"))
        except ValueError as error:
            log.problem(f"{prefix}{where}", str(error), "correct it, or export the file again")
            continue
        seen.add(image)
        found: list[Annotation] = []
        for index in by_image.pop(image, []):
            place = f"annotations[{index}]"
            try:
                one = content["annotations"][index]
                category = whole(one.get("category_id"), "category_id")
                if category not in classes:
                    raise ValueError(f"there is no category {category}")
                found.append(Annotation(_shape(one, size, log), classes[category], where=place))
            except ValueError as error:
                fix = "correct or remove the annotation"
                log.problem(f"{prefix}{place} of {name}", str(error), fix)
        if size is None:
            masks = (one.shape.pixels for one in found if isinstance(one.shape, Mask))
            size = next(((mask.shape[1], mask.shape[0]) for mask in masks), None)
        yield AnnotatedImage(name, size, tuple(found), split=split, where=where, of=of)
    for image, rows in by_image.items():
        what = f"there is no image with the id {image}"
        for row in rows:
            fix = "add the image, or remove the annotation"
            log.problem(f"{prefix}annotations[{row}]", what, fix)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not an object")
    return value


def _shape(value: dict[str, Any], size: tuple[int, int] | None, log: Log) -> Shape:
    """Shape of an annotation."""
    segmentation = value.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return Polygon(tuple(points_of(ring, 3) for ring in segmentation))
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if not isinstance(stated, list) or len(stated) != 2 or None in stated:
            raise ValueError(f"size of the segmentation is {shown(stated)}, not height, width")
        width, height = size_of(stated[1], stated[0]) or (0, 0)
        if size is not None and size != (width, height):
            raise ValueError(f"the mask is {width}×{height}, the image {size[0]}×{size[1]}")
        return Mask(decode_rle(segmentation.get("counts"), width, height))
    if segmentation not in (None, []):
        raise ValueError(f"segmentation is {shown(segmentation)}")
    box = value.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox is {shown(box)}, not x, y, width, height")
    shape = Box(*(number(one, "a number of bbox") for one in box))
    if shape.width <= 0 or shape.height <= 0:
        raise ValueError(f"the box is empty ({shape.width:g} × {shape.height:g})")
    if "keypoints" in value:
        log.note("keypoints are read as the box around them")
    return shape


def decode_rle(counts: Any, width: int, height: int) -> Pixels:
    """Mask of a run-length encoding of COCO: counts of pixels, column by column, from outside on.

    Args:
        counts: List of whole numbers that add up to width × height, or their compressed text.
        width, height: Size of the mask.

    Returns:
        uint8 of shape (height, width) with 0 and 255.

    Raises:
        ValueError: The counts are damaged.

    Example:
        >>> decode_rle([1, 2, 3], 3, 2).tolist(), decode_rle("123", 3, 2).tolist()
        ([[0, 255, 0], [255, 0, 0]], [[0, 255, 0], [255, 0, 0]])
    """
    total = width * height
    if total > MAX_PIXELS:
        raise ValueError(f"the mask is {width}×{height}, which is too large to decode safely")
    if isinstance(counts, list):
        runs = [whole(one, "a count") for one in counts]
    elif isinstance(counts, str) and _COUNTS.fullmatch(counts):
        runs = _counts_of(counts)
    else:
        raise ValueError(f"counts are {shown(counts)}, neither whole numbers nor compressed text")
    if any(one < 0 for one in runs) or sum(runs) != total:
        raise ValueError(f"the counts do not add up to {width} × {height} pixels")
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def _counts_of(text: str) -> list[int]:
    """Counts of a compressed text; from the fourth on, it has differences to two places before."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        value |= (code - 48 & 31) << shift
        shift += 5
        if code < 80:
            value -= (code - 48 >> 4 & 1) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def encode_counts(mask: NDArray[np.bool_]) -> list[int]:
    """Counts of a mask of shape (height, width); inverse of `decode_rle`.

    Example:
        >>> encode_counts(np.array([[0, 1, 0], [1, 0, 0]], bool))
        [1, 2, 3]
    """
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    counts: list[int] = np.diff(changes, prepend=0, append=len(flat)).tolist()
    return counts if counts[-1] else counts[:-1]


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """Compressed text of a mask of shape (height, width); inverse of `decode_rle`.

    Example:
        >>> encode_rle(np.array([[0, 1, 0], [1, 0, 0]], bool))
        '123'
    """
    counts = encode_counts(mask)
    letters: list[str] = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            letters.append(chr(low + 32 * more + 48))
            if not more:
                break
    return "".join(letters)
