"""Proposals: given maps, or those of a given model, as outlines that a person can take over."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.geometry import same_aspect
from preceptor.data.images import ImageError, decode_marks, image_size, image_suffixes
from preceptor.errors import InputError
from preceptor.label.db import Database, LabelSettings
from preceptor.label.images import version_or_none
from preceptor.label.marks import bounding_runs, to_text
from preceptor.label.sources import checked_table, find_source
from preceptor.maps.store import is_store, map_over_image, read_store
from preceptor.utils.results import digest

LEVEL = 50
_INSERT = "INSERT INTO proposals (image, source, level, x, y, w, h, runs) VALUES (?,?,?,?,?,?,?,?)"
"""Percent of a map from which a pixel is proposed, unless a person chooses another."""
MapOf = Callable[[str], NDArray[np.float32] | None]
"""Function of an image that returns its map in [0, 1], of any size; None = there is none."""


def open_maps(
    place: Path, root: Path, images: Collection[str], names: Mapping[str, str] | None = None
) -> MapOf:
    """Maps of a map store, a manifest, a folder of masks, or of a model that decides as positive.

    A mask has the name of its image, at the same place below its folder, or a name that is unique.
    A map store has the names of images: `names` gives their paths, others are paths from `root`.
    InputError if no image has a map.
    """
    if (place / "model.json").is_file():
        return _of_model(place)
    if is_store(place):
        map_of, paths = _of_store(place, root, names)
    else:
        files = _masks(place, root, images) if place.is_dir() else _files(place)
        map_of, paths = lambda path: decode_marks(files[path], path), files
    if not any(path in paths for path in images):
        raise InputError(f"--start-from {place}: it has no map of the images that are marked")
    return lambda path: map_of(path) if path in paths else None


def _files(manifest: Path) -> dict[str, str]:
    """Map files of a manifest by image."""
    table, _ = checked_table(find_source(manifest))
    files = dict(zip(table["path"], table["saliency"], strict=True))
    return {os.path.normpath(path): file for path, file in files.items() if file}


def _masks(folder: Path, root: Path, images: Collection[str]) -> dict[str, str]:
    """Mask files of a folder by image."""
    suffixes = image_suffixes()
    masks = [one for one in sorted(folder.rglob("*")) if one.suffix.lower() in suffixes]
    places = {one.relative_to(folder).with_suffix("").as_posix(): str(one) for one in masks}
    times = Counter(one.stem for one in masks)
    names = {one.stem: str(one) for one in masks if times[one.stem] == 1}
    found = {}
    for path in images:
        below = Path(os.path.relpath(path, root)).with_suffix("").as_posix()
        if file := places.get(below) or names.get(Path(path).stem):
            found[path] = file
    return found


def _of_store(
    folder: Path, root: Path, names: Mapping[str, str] | None
) -> tuple[MapOf, Collection[str]]:
    store = read_store(folder)
    paths = [(names or {}).get(str(name), str(root / name)) for name in store.paths]
    rows = {os.path.normpath(path): at for at, path in enumerate(paths)}

    def map_of(path: str) -> NDArray[np.float32] | None:
        if not store.settled[rows[path]]:  # noise, which normalization would enlarge
            return None
        grid = store.maps[rows[path]].astype(np.float32)
        return map_over_image(grid, store.info, image_size(path))

    return map_of, rows


def _of_model(model: Path) -> MapOf:
    from preceptor.deploy.predictor import load

    predictor = load(model, device="cpu")
    if predictor.info.positive is None or predictor.info.map_kind == "none":
        raise InputError(f"--start-from {model}: it has no positive class with maps to show")
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
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        if place.is_file():
            files += map(Path, _files(place).values())
        self._source = digest([str(place.absolute()), *map(version_or_none, files)])
        self._lock = threading.Lock()  # one is made at a time
        # The map that was asked for last, and its image and size: a slider asks for many levels.
        self._latest: tuple[object, NDArray[np.float32] | None] = None, None

    def shown(self, row: sqlite3.Row, level: int) -> dict[str, Any] | None:
        """Proposal for an image, as JSON: the pixels whose map is at least `level` percent."""
        is_evaluated = row["split"].split("-")[0] in ("val", "test")
        if is_evaluated and not self._settings.proposals_on_evaluation:
            return None
        with self._lock:
            stored = self._stored(row["id"], level)
            if stored is None:
                try:
                    values = self._made(row, level)
                except ImageError:  # of the map, which can be repaired
                    values = None
                if values is None:
                    return None
                new = (row["id"], self._source, level, *values)
                self._database.write(lambda writing: writing.execute(_INSERT, new))
                stored = self._stored(row["id"], level)
        assert stored is not None
        return dict(stored) | {"runs": to_text(stored["runs"])}

    def _stored(self, image: int, level: int) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.reading.execute(
            "SELECT id, level, x, y, w, h, runs FROM proposals "
            "WHERE image = ? AND source = ? AND level = ?",
            (image, self._source, level),
        ).fetchone()
        return row

    def _made(self, row: sqlite3.Row, level: int) -> tuple[int | bytes, ...] | None:
        """Bounding box, empty if no pixel is proposed, and runs; None without a map."""
        path, size = os.path.normpath(self._root / row["path"]), (row["width"], row["height"])
        if self._latest[0] != (path, size):
            self._latest = (path, size), self._whole(path, size)
        values = self._latest[1]
        if values is None or not values.any():
            return None
        return bounding_runs(values >= level / 100) or (0, 0, 0, 0, b"")

    def _whole(self, path: str, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """Map of an image at its size; None also if its own aspect ratio is another one."""
        values = self._map_of(path)
        if values is None or values.shape[::-1] == size:
            return values
        if not same_aspect(values.shape[::-1], size):
            return None
        return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
