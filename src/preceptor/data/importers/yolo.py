"""Importer of YOLO's text files, one per image: boxes, segments and oriented boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from preceptor.data.images import ImageError, image_size
from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.json_values import shown
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    Box,
    ImportedAnnotations,
    Log,
    Polygon,
    Shape,
)
from preceptor.data.importers.source_files import files_below, lines_of
from preceptor.data.importers.split_words import split_of_folders
from preceptor.errors import InputError

_NAMES = ("classes.txt", "obj.names")
_NOT_LABELS = {*_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt", "notes.txt"}
_NO_NAMES = (
    "shapes have the numbers of their classes as names, as neither data.yaml nor "
    f"{' nor '.join(_NAMES)} has them"
)
# Shares beyond 0 to 1 by rounding.
_SLACK = 0.01


def read_yolo(source: Path | str, images: Path | str | None = None) -> ImportedAnnotations:
    """YOLO: a text file per image with `class x y width height` or `class x y x y x y …`.

    Numbers are shares of the upright image. Four corners (oriented boxes) are polygons. An empty
    file says that the image was examined; an image without a file says nothing. Class names are
    those of `data.yaml`, `classes.txt` or `obj.names`, in the folder of the source or beside the
    text files; without names, the number of a class is its name. The split is that of the folder.

    Args:
        source: `data.yaml`, or the folder of the data set or of the text files.
        images: Folder of the images; None = the folder of the source.

    Raises:
        InputError: There is no such file, or the class names cannot be read.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: there is no such file; correct the path")
    root = path if path.is_dir() else path.parent
    settings = _settings(path)
    keypoints = isinstance(settings.get("kpt_shape"), list)
    files = ImageFiles(Path(images) if images is not None else root)
    texts = [one for one in files_below(root, ".txt") if one.name.lower() not in _NOT_LABELS]
    inside = [one for one in texts if "labels" in one.relative_to(root).parts[:-1]]
    texts = inside or texts
    names = _names(settings, root, texts)

    def read(log: Log) -> Iterator[AnnotatedImage]:
        if not texts:
            log.problem(str(root), "there is no text file of labels in it", "correct the path")
        for text in texts:
            of = text.relative_to(root).as_posix()
            stem = PurePosixPath(of).with_suffix("")
            parts = ["images" if part == "labels" else part for part in stem.parts]
            try:
                name = files.find_stem("/".join(parts))
                size = image_size(files.folder / name)
            except (LookupError, ImageError) as error:
                log.error(of, error, "replace the image")
                continue
            shapes = list(_shapes(text, of, size, names, keypoints, log))
            split = split_of_folders(stem)
            yield AnnotatedImage(name, size, tuple(shapes), split=split, examined=True, of=of)

    return ImportedAnnotations(
        "yolo",
        path,
        read,
        classes=list(names.values()),
        annotators=(),
        count=len(texts),
        whole_folder=True,
    )


def _settings(path: Path) -> dict[str, Any]:
    """Content of `data.yaml`, or nothing."""
    if path.is_dir():
        found = [path / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
        path = next((one for one in found if one.is_file()), path)
    if path.is_dir() or path.suffix.lower() not in (".yaml", ".yml"):
        return {}
    try:
        # All values are text as written: classes may be named no, 010 or null.
        value = yaml.load(path.read_text(encoding="utf-8-sig"), yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not sound YAML ({reason}); correct it") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: it is not a data.yaml of `key: value` lines; correct it")
    return value


def _names(settings: dict[str, Any], root: Path, texts: list[Path]) -> dict[int, str]:
    """Names of the classes by number; empty = they are not known."""
    names = settings.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if isinstance(names, dict):
        try:
            found = {int(number): name for number, name in names.items()}
        except (TypeError, ValueError):
            found = {}
        if len(found) < len(names) or not all(isinstance(one, str) for one in found.values()):
            raise InputError(f"data.yaml: names are {shown(names)}; write a name for each number")
        return found
    for name in _NAMES:
        if (root / name).is_file():
            return _lines(root / name)
    # labelImg writes them beside the text files; a folder above them holds for all of its folders.
    folders = {folder for text in texts for folder in text.relative_to(root).parents}
    files = [root / folder / name for folder in sorted(folders) for name in _NAMES]
    files = [file for file in files if file.is_file()]
    for file in files[1:]:
        if _lines(file) != _lines(files[0]):
            raise InputError(
                f"{file}: it has other names than {files[0]}; import one folder at a time"
            )
    return _lines(files[0]) if files else {}


def _lines(file: Path) -> dict[int, str]:
    """Names of the classes in a file, one a line."""
    return {number: line.strip() for number, line in enumerate(lines_of(file)) if line.strip()}


def _shapes(
    text: Path, of: str, size: tuple[int, int], names: dict[int, str], keypoints: bool, log: Log
) -> Iterator[Annotation]:
    try:
        lines = text.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        log.problem(of, "it is not UTF-8 text", "export it again")
        return
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        shape = _shape(words, size, keypoints)
        if isinstance(shape, str):
            log.problem(f"{of}, {where}", shape, "correct or remove the line")
            continue
        known = int(words[0])
        if names and known not in names:
            log.problem(f"{of}, {where}", f"there is no class {known}", "add it to the names")
            continue
        if not names:
            log.note(_NO_NAMES)
        yield Annotation(shape, names.get(known) or str(known), where=where)


def _shape(words: list[str], size: tuple[int, int], keypoints: bool) -> Shape | str:
    """Shape of a line, or what is wrong with it."""
    if not (words[0].isascii() and words[0].isdigit() and len(words[0]) < 10):
        return f"the class is {words[0]!r}, not a whole number"
    try:
        values = [float(one) for one in words[1:]]
    except ValueError:
        return f"{shown(' '.join(words))} has a word that is not a number"
    if not all(map(math.isfinite, values)):
        return "a number is not finite"
    if keypoints:
        values = values[:4]
    if len(values) == 5 or len(values) < 4 or len(values) % 2:
        return f"it has {len(values)} numbers after the class, not 4 (a box) or 6, 8, … (a polygon)"
    if not all(-_SLACK <= one <= 1 + _SLACK for one in values):
        return f"{min(values):g} to {max(values):g} are not shares of the image, from 0 to 1"
    width, height = size
    if len(values) == 4:
        x, y, across, down = values
        return Box((x - across / 2) * width, (y - down / 2) * height, across * width, down * height)
    return Polygon((np.array(values).reshape(-1, 2) * (width, height),))
