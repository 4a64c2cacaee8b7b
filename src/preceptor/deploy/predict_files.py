"""Prediction for many files into one table, with maps on request; resumes where it stopped.

A folder `.NAME.partial` beside the output has `rows.jsonl`: the settings, then a line per image. It
is written batch by batch. A process that is killed may leave a part of a batch, which the next one
cuts off: batches are the same ones again, and so are the results.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.deploy.image_list import MAPS_MARK, ListedImage
from preceptor.deploy.prediction import ModelInfo, Prediction
from preceptor.deploy.predictor import BadImage, Predictor
from preceptor.errors import HeldError, InputError, without_secrets
from preceptor.report.palette import laid_over
from preceptor.utils.files import beginning, locked, named_errors, replacing
from preceptor.utils.process import core_count
from preceptor.utils.results import digest
from preceptor.version import __version__

MapFiles = Literal["overlay", "png"]
"""Maps over the grayscale image, or grayscale maps of the size of the image."""
Row = dict[str, Any]
"""path, decision, score, probabilities (by class), with files of maps map; or path and error."""

_ROWS = "rows.jsonl"
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
    out: Path,
    *,
    model: str,
    settings: object,
    maps: MapOutput | None = None,
    advance: Callable[[int], None] = lambda count: None,
    report_bad: Callable[[str, str], None] = lambda name, reason: None,
) -> Summary:
    """Predict images and write a table with one row per image, in the format of its suffix.

    The same call resumes an interrupted one; the output is the same bytes as without interruption.
    `model` is a hash of it, and `settings` what else determines the output, as a JSON-able value.
    `advance` is told the number of further images.
    """
    kind = None if maps is None else maps.kind
    place = None if maps is None else [str(maps.folder.absolute()), maps.of]
    given = [__version__, model, settings, predictor.batch_size, out.suffix, kind, place]
    key = digest(given)
    folder = partial_folder(out)
    folder.mkdir(exist_ok=True)
    rows = folder / _ROWS
    try:
        with locked(folder / "lock"):
            left = iter(images)
            done = _resumed(rows, key, left, predictor.batch_size)
            advance(done)
            with named_errors(folder), rows.open("ab") as stream:
                _predict(predictor, left, stream, done, maps, advance, report_bad)
            columns = columns_of(predictor.info, maps=maps is not None)
            with replacing(out) as partial:
                WRITERS[out.suffix.lower()](rows, columns, partial)
            decisions = Counter(row.get("decision") for row in read_rows(rows))
    except HeldError as error:
        raise HeldError(f"{out}: another process writes it; choose another name") from error
    except InputError:
        if not rows.is_file() or not any(read_rows(rows)):  # there is nothing to go on from
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
    bad = decisions.pop(None, 0)
    return Summary(Counter({str(name): count for name, count in decisions.items()}), bad)


def partial_folder(out: Path) -> Path:
    """Folder of an unfinished output."""
    return out.with_name(f".{out.name}.partial")


def is_unfinished(out: Path) -> bool:
    """Whether an output was begun and is not finished."""
    return (partial_folder(out) / _ROWS).is_file()


def _resumed(file: Path, key: str, images: Iterator[ListedImage], batch_size: int) -> int:
    """Number of images with valid rows; the file is cut to its whole batches."""
    lines = _lines(file) if file.is_file() else iter(())
    header = next(lines, None)
    if header is None:
        file.write_text(json.dumps({"settings": key}) + "\n", encoding="utf-8")
        return 0
    again = f"remove the folder {file.parent} to start again"
    begun, end = header
    if begun.get("settings") != key:
        raise InputError(
            f"{file.parent} was begun with another model or other options; repeat the command as "
            f"it was, or {again}"
        )
    done = 0
    while len(batch := list(islice(lines, batch_size))) == batch_size:
        names = [_name(image) for image in islice(images, batch_size)]
        if names != [row["path"] for row, _ in batch]:
            raise InputError(
                f"{file.parent}: the images are not those of the interrupted command; give the "
                f"same ones in the same order, or {again}"
            )
        done, end = done + batch_size, batch[-1][1]
    with file.open("r+b") as stream:
        stream.truncate(end)
    return done


def _lines(file: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Valid lines at the beginning of a file, and where each ends."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:  # half a line, or what a power failure has left
                return
            if not line.endswith(b"\n") or not isinstance(value, dict):
                return
            yield value, lines.tell()


def print_predictions(
    predictor: Predictor,
    images: Iterable[ListedImage],
    stream: TextIO,
    *,
    report_bad: Callable[[str, str], None] = lambda name, reason: None,
) -> Summary:
    """Predict images and write a CSV table to a stream, batch by batch; see `predict_files`."""
    write = _csv_writer(stream, columns_of(predictor.info, maps=False))
    decisions: Counter[str] = Counter()
    bad = 0
    for batch in _batches(predictor, iter(images), None):
        for image, prediction in batch:
            write(row_of(_name(image), prediction))
            if isinstance(prediction, BadImage):
                report_bad(image.name, prediction.reason)
                bad += 1
            else:
                decisions[prediction.decision] += 1
        stream.flush()
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


def _predict(
    predictor: Predictor,
    images: Iterator[ListedImage],
    stream: BinaryIO,
    number: int,
    maps: MapOutput | None,
    advance: Callable[[int], None],
    report_bad: Callable[[str, str], None],
) -> None:
    """Append the rows of images; those of a batch when its maps are on the disk."""
    lines: list[str] = []
    drawn: list[Future[None]] = []

    def write() -> None:
        for one in drawn:
            one.result()
        stream.write("".join(lines).encode())
        stream.flush()
        advance(len(lines))
        lines.clear()
        drawn.clear()

    with ThreadPoolExecutor(core_count()) as pool:
        try:
            for batch in _batches(predictor, images, maps):
                write()  # of the batch before, whose maps were drawn meanwhile
                for image, prediction in batch:
                    file = None
                    if isinstance(prediction, BadImage):
                        report_bad(image.name, prediction.reason)
                    elif maps is not None:
                        name = map_file_name(number, image)
                        drawn.append(pool.submit(_draw, maps, name, image, prediction))
                        file = f"{maps.folder.name}/{name}"
                    row = row_of(_name(image), prediction, file)
                    lines.append(json.dumps(row, ensure_ascii=False) + "\n")
                    number += 1
            write()
        finally:
            pool.shutdown(cancel_futures=True)


# -------------------------------------------------------------------- maps


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
    target.parent.mkdir(parents=True, exist_ok=True)
    (maps.folder / MAPS_MARK).touch()
    with replacing(target) as partial:
        picture.save(partial, "PNG")


# -------------------------------------------------------------------- rows and tables


def _name(image: ListedImage) -> str:
    """Name in a row: names of files need not be UTF-8, and may have line breaks."""
    name = image.name.encode("utf-8", "backslashreplace").decode()
    return name.replace("\r", "\\r")  # csv quotes it from Python 3.13 on


def row_of(name: str, prediction: Prediction | BadImage, map_file: str | None = None) -> Row:
    """Row of an image."""
    row: Row = {"path": name}
    if isinstance(prediction, BadImage):
        return row | {"error": prediction.reason}
    row |= {
        "decision": prediction.decision,
        "score": _shortest(np.array([prediction.score], np.float32))[0],
        "probabilities": dict(
            zip(prediction.info.classes, _shortest(prediction.class_probabilities), strict=True)
        ),
    }
    return row if map_file is None else row | {"map": map_file}


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """Numbers with as few digits as tell them apart."""
    return [float(str(value)) for value in values]


def read_rows(file: Path) -> Iterator[Row]:
    """Rows of an unfinished output, after its settings."""
    yield from (row for row, _ in islice(_lines(file), 1, None))


def columns_of(info: ModelInfo, *, maps: bool) -> list[str]:
    """Columns of a table of predictions, with files of maps or without."""
    return [
        "path",
        "decision",
        "score",
        *(f"score_{name}" for name in info.classes),
        *(["map"] if maps else ()),
        "error",
    ]


def _cells(row: Row, columns: Sequence[str]) -> list[Any]:
    """Cells of a row; None for missing ones."""
    scores = {f"score_{name}": value for name, value in row.get("probabilities", {}).items()}
    return [scores.get(name, row.get(name)) for name in columns]


def _csv_writer(stream: TextIO, columns: Sequence[str]) -> Callable[[Row], object]:
    """Function that writes a row to a CSV stream, whose header is written now."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    return lambda row: writer.writerow(_cells(row, columns))


def _write_csv(rows: Path, columns: Sequence[str], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        write = _csv_writer(stream, columns)
        for row in read_rows(rows):
            write(row)


def _write_json_lines(rows: Path, _: Sequence[str], file: Path) -> None:
    with rows.open("rb") as lines, file.open("wb") as stream:
        lines.readline()
        shutil.copyfileobj(lines, stream)


def _write_parquet(rows: Path, columns: Sequence[str], file: Path) -> None:
    kinds = dict.fromkeys(("path", "decision", "map", "error"), pa.string())
    schema = pa.schema([(name, kinds.get(name, pa.float32())) for name in columns])
    left = read_rows(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while part := [_cells(row, columns) for row in islice(left, _GROUP)]:
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(zip(*part, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


WRITERS: dict[str, Callable[[Path, Sequence[str], Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".parquet": _write_parquet,
    ".pq": _write_parquet,
}
"""Function that writes a table from a file of JSON lines, by the suffix of the table."""
