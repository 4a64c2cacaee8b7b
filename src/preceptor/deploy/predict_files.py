"""Prediction for many files into one table, with maps on request."""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.deploy.image_list import MAPS_MARK, ListedImage
from preceptor.deploy.prediction import ModelInfo, Prediction
from preceptor.deploy.predictor import BadImage, Predictor
from preceptor.errors import without_secrets
from preceptor.report.palette import laid_over
from preceptor.utils.files import beginning, replacing
from preceptor.utils.process import core_count

MapFiles = Literal["overlay", "png"]
"""Maps over the grayscale image, or grayscale maps of the size of the image."""
Row = dict[str, Any]
"""Cells by column; missing ones are empty."""
Write = Callable[[list[Row]], object]

FORMATS = (".csv", ".parquet", ".pq")
# Rows of a row group of a Parquet file, which are held in memory.
_GROUP = 50_000
_PER_FOLDER = 1000
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class MapOutput:
    """Maps to be written."""

    kind: MapFiles
    folder: Path
    of: str | None = None  # class of the maps; None = as the predictor has it


@dataclass(frozen=True)
class Summary:
    """What an output contains."""

    decisions: Counter[str]  # number of images
    bad: int  # images that could not be read


def predict_files(
    predictor: Predictor,
    images: Iterable[ListedImage],
    out: Path | TextIO,
    *,
    maps: MapOutput | None = None,
    advance: Callable[[int], None] = lambda count: None,
    report_bad: Callable[[str, str], None] = lambda name, reason: None,
) -> Summary:
    """Predict images and write a table with one row per image.

    `out` is a file, in the format of its suffix, that appears when it is complete, or a stream, to
    which CSV is written batch by batch. `advance` is told the number of further images.
    """
    decisions: Counter[str] = Counter()
    bad = number = 0
    columns = columns_of(predictor.info, maps=maps is not None)
    with _table(out, columns) as write, ThreadPoolExecutor(core_count()) as pool:
        drawn: list[Future[None]] = []
        try:
            for batch in _batches(predictor, iter(images), maps):
                rows = []
                for one in drawn:  # of the batch before, while this one was computed
                    one.result()
                drawn.clear()
                for image, prediction in batch:
                    file = None
                    if isinstance(prediction, BadImage):
                        report_bad(image.name, prediction.reason)
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


def _batches(
    predictor: Predictor, images: Iterator[ListedImage], maps: MapOutput | None
) -> Iterator[list[tuple[ListedImage, Prediction | BadImage]]]:
    """Images with their predictions, a batch at a time."""
    taken: deque[ListedImage] = deque()

    def paths() -> Iterator[str]:
        for image in images:
            taken.append(image)
            yield image.path

    of = None if maps is None else maps.of
    wanted = maps is not None
    for batch in predictor.batches(paths(), maps=wanted, map_of=of):
        yield [(taken.popleft(), prediction) for prediction in batch.results()]


def map_file_name(number: int, image: ListedImage) -> str:
    """Name of the file of a map: the number of the image, and the end of its name."""
    stem = beginning(_UNSAFE.sub("_", Path(without_secrets(image.name)).stem), 80)
    return f"{number // _PER_FOLDER:05d}/{number:08d}-{stem}.png"


def _draw(maps: MapOutput, name: str, image: ListedImage, prediction: Prediction) -> None:
    saliency = prediction.map_at_image()
    if maps.kind == "overlay":
        picture = laid_over(decode_image(image.path), saliency)
    else:
        picture = Image.fromarray((saliency * 255).round().astype(np.uint8))
    target = maps.folder / name
    maps.folder.mkdir(exist_ok=True)
    (maps.folder / MAPS_MARK).touch()
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as partial:
        picture.save(partial, "PNG")


def _name(image: ListedImage) -> str:
    """Name in a row: names of files need not be UTF-8, and may have line breaks."""
    name = image.name.encode("utf-8", "backslashreplace").decode()
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
    """Context with a function that writes rows to a table."""
    if not isinstance(out, Path):
        yield _csv_writer(out, columns)
        return
    with replacing(out) as partial:
        if out.suffix.lower() == ".csv":
            with partial.open("w", encoding="utf-8", newline="") as stream:
                yield _csv_writer(stream, columns)
        else:
            with _parquet_writer(partial, columns) as write:
                yield write


def _csv_writer(stream: TextIO, columns: Sequence[str]) -> Write:
    """Function that writes rows to a CSV stream, whose header is written now."""
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()

    def write(rows: list[Row]) -> None:
        writer.writerows(rows)
        stream.flush()

    return write


@contextmanager
def _parquet_writer(file: Path, columns: Sequence[str]) -> Iterator[Write]:
    kinds = dict.fromkeys(("path", "decision", "map", "error"), pa.string())
    schema = pa.schema([(name, kinds.get(name, pa.float32())) for name in columns])
    waiting: list[Row] = []
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def write(rows: list[Row]) -> None:
            waiting.extend(rows)
            if len(waiting) >= _GROUP:
                flush()

        yield write
        flush()
