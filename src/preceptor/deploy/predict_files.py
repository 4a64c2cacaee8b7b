"""Prediction for files and folders into one table, with maps on request."""

# os.path and not Path: a million files are listed.
# ruff: noqa: PTH118, PTH122

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import decode_image, image_suffixes
from preceptor.deploy.prediction import ModelInfo, Prediction
from preceptor.deploy.predictor import BadImage, Predictor
from preceptor.errors import InputError
from preceptor.report.palette import laid_over
from preceptor.utils.files import beginning, replacing, walk
from preceptor.utils.process import core_count

MapFiles = Literal["overlay", "png"]
"""Maps over the grayscale image, or grayscale maps of the size of the image."""
Row = dict[str, Any]
"""Cells by column; missing ones are empty."""
Write = Callable[[list[Row]], object]

FORMATS = (".csv",)
_PER_FOLDER = 1000
_UNSAFE = re.compile(r"[^\w.-]+")
MAPS_MARK = ".preceptor-maps"
"""Name of the empty file by which a folder of written maps is recognized."""


class ImageList:
    """Image files, and those below folders, by their paths in the order of names.

    Folders with a file `MAPS_MARK` are left out.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = inputs
        for name in inputs:
            if os.path.isdir(name):  # noqa: PTH112
                if next(_images_below(name), None) is None:
                    known = " ".join(sorted(image_suffixes()))
                    raise InputError(f"{name}: the folder has no images ({known})")
            elif not os.path.lexists(name):
                raise InputError(f"{name}: there is no such file; correct it")
            elif _suffix(name) in (".csv", ".parquet"):
                raise InputError(f"{name}: it is a table; name the folder of its images")

    def __iter__(self) -> Iterator[str]:
        for name in self._inputs:
            if os.path.isdir(name):  # noqa: PTH112
                yield from _images_below(name)
            else:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _images_below(folder: str) -> Iterator[str]:
    return (path for path in _files_below(folder) if _suffix(path) in image_suffixes())


def _files_below(folder: str) -> Iterator[str]:
    """Files of a folder and the folders below it; hidden ones and maps left out."""
    for base, folders, names in walk(folder):
        marks = {name: os.path.join(base, name, MAPS_MARK) for name in folders}
        folders[:] = [name for name, mark in marks.items() if not os.path.lexists(mark)]
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(base, name)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


@dataclass(frozen=True)
class MapOutput:
    """Maps to be written."""

    kind: MapFiles
    folder: Path


@dataclass(frozen=True)
class Summary:
    """What an output contains."""

    decisions: Counter[str]  # number of images
    bad: int  # images that could not be read


def predict_files(
    predictor: Predictor,
    images: Iterable[str],
    out: Path | TextIO,
    *,
    maps: MapOutput | None = None,
    advance: Callable[[int], None] = lambda count: None,
    report_bad: Callable[[str, str], None] = lambda name, reason: None,
) -> Summary:
    """Predict images and write a table with one row per image.

    `out` is a CSV file that appears when it is complete, or a stream that is written batch by
    batch. `advance` is told the number of further images.
    """
    decisions: Counter[str] = Counter()
    bad = number = 0
    columns = columns_of(predictor.info, maps=maps is not None)
    with _table(out, columns) as write, ThreadPoolExecutor(core_count()) as pool:
        drawn: list[Future[None]] = []
        try:
            names, paths = tee(images)
            for batch in predictor.batches(paths, maps=maps is not None):
                rows = []
                for one in drawn:  # of the batch before, while this one was computed
                    one.result()
                drawn.clear()
                pairs = zip(islice(names, batch.count), batch.results(), strict=True)
                for image, prediction in pairs:
                    file = None
                    if isinstance(prediction, BadImage):
                        report_bad(image, prediction.reason)
                        bad += 1
                    else:
                        decisions[prediction.decision] += 1
                        if maps is not None:
                            name = map_file_name(number, image)
                            drawn.append(pool.submit(_draw, maps, name, image, prediction))
                            file = f"{maps.folder.name}/{name}"
                    rows.append(row_of(_name(image), prediction, file))
                    number += 1
                write(rows)
                advance(len(rows))
            for one in drawn:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return Summary(decisions, bad)


def map_file_name(number: int, image: str) -> str:
    """Name of the file of a map: the number of the image, and the end of its name."""
    stem = beginning(_UNSAFE.sub("_", Path(image).stem), 80)
    return f"{number // _PER_FOLDER:05d}/{number:08d}-{stem}.png"


def _draw(maps: MapOutput, name: str, image: str, prediction: Prediction) -> None:
    saliency = prediction.map_at_image()
    if maps.kind == "overlay":
        picture = laid_over(decode_image(image), saliency)
    else:
        picture = Image.fromarray((saliency * 255).round().astype(np.uint8))
    target = maps.folder / name
    maps.folder.mkdir(exist_ok=True)
    (maps.folder / MAPS_MARK).touch()
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as partial:
        picture.save(partial, "PNG")


def _name(image: str) -> str:
    """Name in a row: names of files need not be UTF-8, and may have line breaks."""
    name = image.encode("utf-8", "backslashreplace").decode()
    return name.replace("\r", "\\r")  # csv quotes it from Python 3.13 on


def row_of(name: str, prediction: Prediction | BadImage, map_file: str | None = None) -> Row:
    """Row of an image."""
    if isinstance(prediction, BadImage):
        return {"path": name, "error": prediction.reason}
    scores = dict(
        zip(prediction.info.classes, _shortest(prediction.class_probabilities), strict=True)
    )
    return {
        "path": name,
        "decision": prediction.decision,
        "score": _shortest(np.array([prediction.score], np.float32))[0],
        **{f"score_{label}": value for label, value in scores.items()},
        "map": map_file,
    }


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """Numbers with as few digits as tell them apart."""
    return [float(str(value)) for value in values]


def columns_of(info: ModelInfo, *, maps: bool) -> list[str]:
    """Columns of a table of predictions, with files of maps or without."""
    scores = [f"score_{name}" for name in info.classes]
    return ["path", "decision", "score", *scores, *(["map"] if maps else ()), "error"]


@contextmanager
def _table(out: Path | TextIO, columns: Sequence[str]) -> Iterator[Write]:
    """Context with a function that writes rows to a table, whose header is written now."""
    with ExitStack() as stack:
        stream = out
        if isinstance(out, Path):
            partial = stack.enter_context(replacing(out))
            stream = stack.enter_context(partial.open("w", encoding="utf-8", newline=""))
        assert not isinstance(stream, Path)
        writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()

        def write(rows: list[Row]) -> None:
            writer.writerows(rows)
            stream.flush()

        yield write
