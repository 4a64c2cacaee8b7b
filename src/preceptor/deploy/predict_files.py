"""Prediction for many files into one table, with maps on request; resumes where it stopped.

A folder `.NAME.partial` beside the output has `rows.jsonl` (a line per image) and `state.json`,
with the size of its valid part. A process that is killed leaves more rows, which are cut off when
it is started again.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.deploy.image_list import MAPS_MARK, ListedImage
from preceptor.deploy.prediction import ModelInfo, Prediction
from preceptor.deploy.predictor import BadImage, Predictor
from preceptor.errors import HeldError, InputError, without_secrets
from preceptor.report.palette import laid_over
from preceptor.utils.files import beginning, replacing
from preceptor.utils.process import core_count
from preceptor.utils.results import digest, write_atomically
from preceptor.version import __version__

KEEP_EVERY = 2.0
"""Seconds between two states from which an interrupted call goes on."""
MapFiles = Literal["overlay", "png"]
"""Maps over the grayscale image, or grayscale maps of the size of the image."""
Row = dict[str, Any]
"""path, decision, score, probabilities (by class), of a model with a reference unfamiliar (bool),
unfamiliar_share and distance, with files of maps map; or path and error."""

_ROWS, _STATE = "rows.jsonl", "state.json"
_REFERENCE = ("unfamiliar", "unfamiliar_share", "distance")
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
    keep_every: float = KEEP_EVERY,
    advance: Callable[[int], None] = lambda count: None,
    report_bad: Callable[[str, str], None] = lambda name, reason: None,
) -> Summary:
    """Predict images and write a table with one row per image, in the format of its suffix.

    The same call resumes an interrupted one; the output is the same bytes as without interruption.
    `model` is a hash of it, and `settings` what else determines the output, as a JSON-able value.
    `keep_every` seconds a state is kept; `advance` is told the number of further images.
    """
    kind = None if maps is None else maps.kind
    place = None if maps is None else [str(maps.folder.absolute()), maps.of]
    given = [__version__, model, settings, out.suffix, kind, place]
    with Unfinished(out, digest(given), lambda: predictor.batch_size) as unfinished:
        left = iter(images)
        try:
            _skip(left, unfinished, advance)
            _predict(predictor, left, unfinished, maps, keep_every, advance, report_bad)
        except InputError:
            if not unfinished.state.images:  # there is nothing to go on from
                unfinished.remove()
            raise
        rows = unfinished.folder / _ROWS
        columns = columns_of(predictor.info, maps=maps is not None)
        with replacing(out) as partial:
            WRITERS[out.suffix.lower()](rows, columns, partial)
        decided = [row.get("decision") for row in read_rows(rows)]
        decisions = Counter(str(decision) for decision in decided if decision is not None)
        bad = decided.count(None)
        unfinished.remove()
    return Summary(decisions, bad)


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
    for batch in _batches(predictor, iter(images), None, None):
        for image, found in batch:
            write(row_of(image.name, found))
            if isinstance(found, BadImage):
                report_bad(image.name, found.reason)
                bad += 1
            else:
                decisions[found.decision] += 1
        stream.flush()
    return Summary(decisions, bad)


def _batches(
    predictor: Predictor,
    images: Iterator[ListedImage],
    batch_size: int | None,
    maps: MapOutput | None,
) -> Iterator[list[tuple[ListedImage, Prediction | BadImage]]]:
    """Images with their predictions, a batch at a time."""
    taken: deque[ListedImage] = deque()

    def paths() -> Iterator[str]:
        for image in images:
            taken.append(image)
            yield image.path

    of = None if maps is None else maps.of
    wanted = maps is not None
    for batch in predictor.batches(paths(), maps=wanted, map_of=of, batch_size=batch_size):
        yield [(taken.popleft(), found) for found in batch.results()]


def _skip(
    images: Iterator[ListedImage], unfinished: Unfinished, advance: Callable[[int], None]
) -> None:
    """Skip the images that are done, which must be the same ones."""
    names = ""
    for image in islice(images, unfinished.state.images):
        names = _chained(names, image.name)
    if names != unfinished.state.names:
        raise InputError(
            f"{unfinished.folder}: the images are not those of the interrupted command; give the "
            "same ones in the same order, or remove the folder to start again"
        )
    advance(unfinished.state.images)


def _chained(names: str, name: str) -> str:
    """Hash of a sequence of names, from the hash of all but the last one."""
    text = f"{names}\n{name}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def _predict(
    predictor: Predictor,
    images: Iterator[ListedImage],
    unfinished: Unfinished,
    maps: MapOutput | None,
    keep_every: float,
    advance: Callable[[int], None],
    report_bad: Callable[[str, str], None],
) -> None:
    state = unfinished.state
    number, names = state.images, state.names
    kept = time.monotonic()
    drawn: list[Future[None]] = []
    pool = ThreadPoolExecutor(core_count())
    try:
        for batch in _batches(predictor, images, state.batch_size, maps):
            lines: list[str] = []
            for image, found in batch:
                names = _chained(names, image.name)
                file = None
                if isinstance(found, BadImage):
                    report_bad(image.name, found.reason)
                elif maps is not None:
                    file = map_file_name(number, image)
                    drawn.append(pool.submit(_draw, maps, file, image, found))
                lines.append(json.dumps(row_of(image.name, found, file), ensure_ascii=False) + "\n")
                number += 1
            unfinished.write("".join(lines).encode())
            advance(len(batch))
            if time.monotonic() - kept >= keep_every:
                for one in drawn:  # on the disk before the state that counts them
                    one.result()
                drawn = []
                unfinished.keep(number, names)
                kept = time.monotonic()
        for one in drawn:
            one.result()
    finally:
        pool.shutdown(cancel_futures=True)
    unfinished.keep(number, names)


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


def row_of(name: str, found: Prediction | BadImage, map_file: str | None = None) -> Row:
    """Row of an image."""
    # Names of files need not be UTF-8.
    row: Row = {"path": name.encode("utf-8", "backslashreplace").decode()}
    if isinstance(found, BadImage):
        return row | {"error": found.reason}
    row |= {
        "decision": found.decision,
        "score": _shortest(np.array([found.score], np.float32))[0],
        "probabilities": dict(
            zip(found.info.classes, _shortest(found.class_probabilities), strict=True)
        ),
    }
    if (unfamiliar := found.unfamiliar) is not None:
        values = (bool(unfamiliar), unfamiliar.share, unfamiliar.distance)
        row |= dict(zip(_REFERENCE, values, strict=True))
    return row if map_file is None else row | {"map": map_file}


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """Numbers with as few digits as tell them apart."""
    return [float(str(value)) for value in values]


def read_rows(file: Path) -> Iterator[Row]:
    """Rows of a file of JSON lines."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


def columns_of(info: ModelInfo, *, maps: bool) -> list[str]:
    """Columns of a table of predictions, with files of maps or without."""
    return [
        "path",
        "decision",
        "score",
        *(f"score_{name}" for name in info.classes),
        *(_REFERENCE if info.false_alarms is not None else ()),
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
    quoting = csv.writer(stream, csv.unix_dialect)  # before Python 3.13 a lone "\r" is not quoted
    writer.writerow(columns)

    def write(row: Row) -> None:
        cells = _cells(row, columns)
        (quoting if any("\r" in str(cell) for cell in cells) else writer).writerow(cells)

    return write


def _write_csv(rows: Path, columns: Sequence[str], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        write = _csv_writer(stream, columns)
        for row in read_rows(rows):
            write(row)


def _write_json_lines(rows: Path, _: Sequence[str], file: Path) -> None:
    shutil.copyfile(rows, file)


def _write_parquet(rows: Path, columns: Sequence[str], file: Path) -> None:
    kinds = dict.fromkeys(("path", "decision", "map", "error"), pa.string())
    kinds |= {"unfamiliar": pa.bool_(), "distance": pa.float64(), "unfamiliar_share": pa.float64()}
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


# -------------------------------------------------------------------- unfinished outputs


@dataclass(frozen=True)
class State:
    """Valid part of an unfinished output."""

    settings: str  # hash of the model and of the settings
    batch_size: int
    images: int = 0  # number that is done, bad ones included
    names: str = ""  # hash of their names
    rows: int = 0  # length of the rows in bytes


def partial_folder(out: Path) -> Path:
    """Folder of an unfinished output."""
    return out.with_name(f".{out.name}.partial")


def is_unfinished(out: Path) -> bool:
    """Whether an output was begun and is not finished."""
    return (partial_folder(out) / _STATE).is_file()


class Unfinished:
    """Folder of an unfinished output, used as a context manager; it is kept until `remove`."""

    def __init__(self, out: Path, settings: str, batch_size: Callable[[], int]) -> None:
        self.folder = partial_folder(out)
        self.folder.mkdir(exist_ok=True)
        self._open_files = contextlib.ExitStack()
        try:
            try:
                with self._named_errors():
                    lock = FileLock(self.folder / "lock").acquire(timeout=0)
            except Timeout as error:
                raise HeldError(f"{out}: another process writes it; choose another name") from error
            self._open_files.enter_context(lock)  # released if the process dies
            self.state = self._read(settings) or State(settings, batch_size())
            self._rows = self._opened(_ROWS, self.state.rows)
            # From here on there is something to go on from: maps may be written before any row.
            self.keep(self.state.images, self.state.names)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # on a full disk; `keep` wrote all that is valid
            self._open_files.close()

    def write(self, rows: bytes) -> None:
        """Append rows; they are valid after the next `keep`."""
        with self._named_errors():
            self._rows.write(rows)

    def keep(self, images: int, names: str) -> None:
        """Make all that was written valid, also after a power failure."""
        with self._named_errors():
            self._rows.flush()
            os.fsync(self._rows.fileno())
        state = replace(self.state, images=images, names=names, rows=self._rows.tell())
        write_atomically(self.folder / _STATE, json.dumps(asdict(state)) + "\n")
        self.state = state

    def remove(self) -> None:
        """Remove the folder, after the output is in its place."""
        self.__exit__()
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Context whose errors name the folder: an open file that cannot be written names none."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.folder)
            raise

    def _read(self, settings: str) -> State | None:
        """State of an earlier process; None if there is none."""
        file = self.folder / _STATE
        again = f"remove the folder {self.folder} to start again"
        try:
            state = State(**json.loads(file.read_text(encoding="utf-8")))
            damaged = (self.folder / _ROWS).stat().st_size < state.rows
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # errors of JSON, of UTF-8 and of other keys
            damaged = True
        if damaged:
            raise InputError(f"{file}: damaged; {again}")
        if state.settings != settings:
            raise InputError(
                f"{self.folder} was begun with another model or other options; repeat the command "
                f"as it was, or {again}"
            )
        return state

    def _opened(self, name: str, size: int) -> BinaryIO:
        """File for appending, cut to its valid part."""
        file = self._open_files.enter_context((self.folder / name).open("ab"))
        file.truncate(size)
        file.seek(size)
        return file
