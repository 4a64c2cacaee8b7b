"""Prediction for many files: one row per image, maps on request; resumes where it stopped."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from preceptor.batch_prediction.image_list import ListedImage
from preceptor.batch_prediction.map_files import (
    MapDrawer,
    MapFiles,
    map_file_name,
    write_map_store,
)
from preceptor.batch_prediction.rows import (
    WRITERS,
    Columns,
    csv_writer,
    json_line,
    read_rows,
    row_of,
)
from preceptor.batch_prediction.unfinished import MAPS, ROWS, Unfinished, chained
from preceptor.errors import InputError
from preceptor.predictor.inputs import BadImage
from preceptor.predictor.map_values import normalised
from preceptor.predictor.prediction import Prediction
from preceptor.predictor.predictor import Predictor
from preceptor.runtime.cores import core_count
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.result_folder import digest
from preceptor.version import __version__

KEEP_EVERY = 2.0
"""Seconds between two states from which an interrupted call goes on."""


@dataclass(frozen=True)
class MapOutput:
    """Maps to be written.

    Args:
        kind: overlay, png or store.
        folder: Folder of the files or of the store.
        of: Class of the maps; None = as the predictor has it.
    """

    kind: MapFiles
    folder: Path
    of: str | None = None


@dataclass(frozen=True)
class Summary:
    """What an output contains.

    Args:
        decisions: Number of images by decision.
        bad: Number of images that could not be read.
    """

    decisions: Counter[str]
    bad: int


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
    """Predict images and write a table with one row per image.

    The same call resumes an interrupted one, and the output is the same bytes as without an
    interruption.

    Args:
        predictor: Predictor.
        images: Images; the same ones when an interrupted call is repeated.
        out: Output file, whose suffix is its format.
        model: Hash of the model.
        settings: What else determines the output, as a JSON-able value.
        maps: Maps to be written; None = none.
        keep_every: Seconds between two states from which an interrupted call goes on.
        advance: Function called with the number of further images that are done.
        report_bad: Function called with the name of a bad image and the reason.

    Raises:
        InputError: The images are not those of the interrupted call.
    """
    kind = None if maps is None else maps.kind
    place = None if maps is None else [str(maps.folder.absolute()), maps.of]
    given = [__version__, model, settings, out.suffix, kind, place]
    info = predictor.info
    with Unfinished(out, digest(given), lambda: predictor.batch_size) as unfinished:
        left = iter(images)
        try:
            _skip(left, unfinished, advance)
            _predict(predictor, left, unfinished, maps, keep_every, advance, report_bad)
        except InputError:
            if not unfinished.state.images:  # there is nothing to go on from
                unfinished.remove()
            raise
        rows = unfinished.folder / ROWS
        if maps is not None and maps.kind == "store":
            write_map_store(
                maps.folder, rows, unfinished.folder / MAPS, unfinished.state.grid, info,
                teacher=model, map_of=maps.of,
            )  # fmt: skip
        columns = Columns(
            info.classes,
            maps=kind in ("overlay", "png"),
            reference=predictor.info.false_alarms is not None,
        )
        with replacing(out) as partial:
            WRITERS[out.suffix.lower()](rows, columns, partial)
        summary = _summary(rows)
        unfinished.remove()
    return summary


def print_predictions(
    predictor: Predictor,
    images: Iterable[ListedImage],
    stream: TextIO,
    *,
    report_bad: Callable[[str, str], None] = lambda name, reason: None,
) -> Summary:
    """Predict images and write a CSV table to a stream, batch by batch; arguments as above."""
    columns = Columns(
        predictor.info.classes,
        maps=False,
        reference=predictor.info.false_alarms is not None,
    )
    write = csv_writer(stream, columns)
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
    for batch in predictor.batches(
        paths(), maps=maps is not None, map_of=of, batch_size=batch_size
    ):
        yield [(taken.popleft(), found) for found in batch.results()]


def _skip(
    images: Iterator[ListedImage], unfinished: Unfinished, advance: Callable[[int], None]
) -> None:
    """Skip the images that are done.

    Raises:
        InputError: They are other images.
    """
    names = ""
    for image in islice(images, unfinished.state.images):
        names = chained(names, image.name)
    if names != unfinished.state.names:
        raise InputError(
            f"{unfinished.folder}: the images are not those of the interrupted command; give the "
            "same ones in the same order, or remove the folder to start again"
        )
    advance(unfinished.state.images)


def _predict(
    predictor: Predictor,
    images: Iterator[ListedImage],
    unfinished: Unfinished,
    maps: MapOutput | None,
    keep_every: float,
    advance: Callable[[int], None],
    report_bad: Callable[[str, str], None],
) -> None:
    """Predict the images that are left."""
    state = unfinished.state
    number, names, grid = state.images, state.names, state.grid
    kept = time.monotonic()
    with _drawer(maps) as drawer:
        for batch in _batches(predictor, images, state.batch_size, maps):
            lines: list[str] = []
            raw: list[bytes] = []
            for image, found in batch:
                names = chained(names, image.name)
                file = None
                if isinstance(found, BadImage):
                    report_bad(image.name, found.reason)
                elif drawer is not None:
                    file = map_file_name(number, image)
                    drawer.draw(file, image, found)
                elif maps is not None:
                    grid = list(found.raw_map.shape)
                    raw.append(normalised(found.raw_map).astype(np.float16).tobytes())
                lines.append(json_line(row_of(image.name, found, file)))
                number += 1
            unfinished.write("".join(lines).encode(), b"".join(raw))
            advance(len(batch))
            if time.monotonic() - kept >= keep_every:
                if drawer is not None:
                    drawer.wait()
                unfinished.keep(number, names, grid)
                kept = time.monotonic()
        if drawer is not None:
            drawer.wait()
    unfinished.keep(number, names, grid)


def _drawer(
    maps: MapOutput | None,
) -> contextlib.AbstractContextManager[MapDrawer | None]:
    if maps is None or maps.kind == "store":
        return contextlib.nullcontext()
    return MapDrawer(maps.folder, maps.kind, core_count())


def _summary(rows: Path) -> Summary:
    decisions: Counter[str] = Counter()
    bad = 0
    for row in read_rows(rows):
        if "error" in row:
            bad += 1
        else:
            decisions[row["decision"]] += 1
    return Summary(decisions, bad)
