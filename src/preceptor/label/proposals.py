"""Proposals: given maps, or those of a given model, as outlines that a person can take over."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data.images import ImageError, decode_map, image_size
from preceptor.deploy.prediction import normalized, over_image
from preceptor.errors import InputError
from preceptor.label.db import Connection, Database, LabelSettings
from preceptor.label.images import version_or_none
from preceptor.label.marks import bounding_runs, to_text
from preceptor.label.sources import checked_table, find_source
from preceptor.maps.store import read_store
from preceptor.utils.results import digest

LEVEL = 0.5
"""Value of a map from which a pixel is proposed."""
MapOf = Callable[[str], NDArray[np.float32] | None]
"""Function of an image that returns its map in [0, 1], of any size; None = there is none."""


def open_maps(
    place: Path, root: Path, images: Collection[str], names: Mapping[str, str] | None = None
) -> MapOf:
    """Maps of a map store, of a manifest, or of a model where it decides for its positive class.

    A map store has the names of images: `names` gives their paths, others are paths from `root`.
    InputError if no image has a map.
    """
    if place.suffix == ".onnx" or (place / "model.json").is_file():
        return _of_model(place)
    map_of, paths = _of_store(place, root, names) if place.is_dir() else _of_manifest(place)
    if not any(path in paths for path in images):
        raise InputError(f"--teacher {place}: it has no map of the images that are marked")
    return lambda path: map_of(path) if path in paths else None


def _of_manifest(manifest: Path) -> tuple[MapOf, Collection[str]]:
    table, _ = checked_table(find_source(manifest))
    files = dict(zip(table["path"], table["saliency"], strict=True))
    files = {os.path.normpath(path): file for path, file in files.items() if file}

    def map_of(path: str) -> NDArray[np.float32]:
        values = decode_map(files[path])
        largest = float(values.max())  # of a mask of 0 and 1, as in an export
        return values / np.float32(largest) if 0 < largest < 1.5 / 255 else values

    return map_of, files


def _of_store(
    folder: Path, root: Path, names: Mapping[str, str] | None
) -> tuple[MapOf, Collection[str]]:
    store = read_store(folder)
    form = ImageFormat(store.info.side, store.info.fit)
    paths = [(names or {}).get(str(name), str(root / name)) for name in store.paths]
    rows = {os.path.normpath(path): at for at, path in enumerate(paths)}

    def map_of(path: str) -> NDArray[np.float32] | None:
        if not store.settled[rows[path]]:  # noise, which normalization would enlarge
            return None
        grid = store.maps[rows[path]].astype(np.float32)
        shown = grid if store.info.method == "cells" else normalized(grid)
        return over_image(shown, form, image_size(path))

    return map_of, rows


def _of_model(model: Path) -> MapOf:
    from preceptor.deploy.predictor import load

    predictor = load(model, device="cpu")
    if predictor.info.positive is None:
        raise InputError(f"--teacher {model}: it has no positive class whose maps could be shown")
    predictor.check_maps()

    def map_of(path: str) -> NDArray[np.float32] | None:
        prediction = predictor(path)
        return prediction.map_at_image() if prediction.decision == prediction.map_class else None

    return map_of


class Proposals:
    """Proposals for the images of a database, made when a person is shown one first."""

    def __init__(
        self,
        place: Path,
        root: Path,
        database: Database,
        settings: LabelSettings,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._root, self._database, self._settings = root, database, settings
        paths = database.reading.execute("SELECT path FROM images WHERE listed = 1").fetchall()
        images = [os.path.normpath(root / path) for (path,) in paths]
        self._map_of = open_maps(place, root, images, names)
        files = [place] if place.is_file() else sorted(place.iterdir())
        self._source = digest([str(place.absolute()), *map(version_or_none, files)])
        self._lock = threading.Lock()  # one is made at a time

    def shown(self, row: sqlite3.Row, person: int) -> dict[str, Any] | None:
        """Proposal that a person is shown for an image now, as JSON."""
        settings, reading = self._settings, self._database.reading
        if settings.proposals == "never" or (
            row["split"].split("-")[0] in ("val", "test") and not settings.proposals_on_evaluation
        ):
            return None
        own = "SELECT 1 FROM strokes WHERE image = ? AND person = ? AND proposal IS NULL LIMIT 1"
        if (
            settings.proposals == "after"
            and not reading.execute(own, (row["id"], person)).fetchone()
        ):
            return None
        with self._lock:
            stored = self._stored(row["id"])
            if stored is None:
                try:
                    values = self._made(row)
                except ImageError:  # of the map, which can be repaired
                    return None
                self._database.write(lambda writing: self._write(writing, row["id"], values))
                stored = self._stored(row["id"])
        assert stored is not None
        return dict(stored) | {"runs": to_text(stored["runs"])} if stored["w"] else None

    def _stored(self, image: int) -> sqlite3.Row | None:
        statement = "SELECT id, x, y, w, h, runs FROM proposals WHERE image = ? AND source = ?"
        row: sqlite3.Row | None = self._database.reading.execute(
            statement, (image, self._source)
        ).fetchone()
        return row

    def _write(self, connection: Connection, image: int, values: tuple[int | bytes, ...]) -> None:
        connection.execute(
            "INSERT INTO proposals (image, source, x, y, w, h, runs) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (image, self._source, *values),
        )

    def _made(self, row: sqlite3.Row) -> tuple[int | bytes, ...]:
        """Bounding box and runs of the proposed pixels; an empty box if there are none."""
        values = self._map_of(os.path.normpath(self._root / row["path"]))
        if values is None:
            return 0, 0, 0, 0, b""
        size = row["width"], row["height"]
        if values.shape[::-1] != size:
            drawn = Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)
            values = np.asarray(drawn)
        return bounding_runs(values >= LEVEL) or (0, 0, 0, 0, b"")
