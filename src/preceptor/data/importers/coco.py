"""Importer of COCO instances: boxes, polygons and run-length encoded masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preceptor.data.importers.coco_file import (
    BOX,
    POLYGON,
    RLE,
    CocoFile,
    CocoShapes,
    read_coco_file,
)
from preceptor.data.importers.coco_rle import decode_counts, decode_string
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    Box,
    ImportedAnnotations,
    Log,
    Mask,
    Polygon,
    Shape,
)
from preceptor.data.importers.source_files import files_below
from preceptor.errors import InputError


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
    files = [read_coco_file(path) for path in paths]
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
        found = sorted(files_below(path, ".json"))
        if not found:
            raise InputError(f"{path}: there is no JSON file in it; name the file of annotations")
        # Other files of a data set name the same images: captions, keypoints, panoptic segments.
        return [file for file in found if file.name.startswith("instances")] or found
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; correct the path")
    return [path]


def _images(file: CocoFile, log: Log, several: bool) -> Iterator[AnnotatedImage]:
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
            encoded = (i for i in order[left:right].tolist() if shapes.kind[i] == RLE)
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
    shapes: CocoShapes,
    index: int,
    numbers: NDArray[np.float64],
    ring_start: NDArray[np.int64],
    size: tuple[int, int] | None,
) -> Shape | str:
    """Shape of an annotation, or what is wrong with it."""
    first, kind = shapes.first[index], shapes.kind[index]
    if kind == BOX:
        at = shapes.ring_start[first]
        return Box(*shapes.numbers[at : at + 4])
    if kind == POLYGON:
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
