"""Maps of predictions as PNG files, or as a map store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from preceptor.batch_prediction.image_list import MAPS_MARK, ListedImage
from preceptor.batch_prediction.rows import read_rows
from preceptor.data.images import decode_image
from preceptor.errors import without_secrets
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.overlay import laid_over
from preceptor.predictor.prediction import Prediction
from preceptor.runtime.replace_file import beginning, replacing

MapFiles = Literal["overlay", "png", "store"]
"""Maps over the grayscale image, grayscale maps of the size of the image, or a map store."""

_PER_FOLDER = 1000
_UNSAFE = re.compile(r"[^\w.-]+")


def map_file_name(number: int, image: ListedImage) -> str:
    """Name of the file of a map: the number of the image, and the end of its name.

    Example:
        >>> map_file_name(1234, ListedImage("scans/a b.jpg", ""))
        '00001/00001234-a_b.png'
    """
    stem = beginning(_UNSAFE.sub("_", Path(without_secrets(image.name)).stem), 80)
    return f"{number // _PER_FOLDER:05d}/{number:08d}-{stem}.png"


class MapDrawer:
    """Drawing of maps by threads, used as a context manager; the folder gets a `MAPS_MARK`.

    Args:
        folder: Folder of the files.
        kind: overlay or png.
        workers: Number of threads.
    """

    def __init__(self, folder: Path, kind: MapFiles, workers: int) -> None:
        self._folder = folder
        self._kind = kind
        self._pool = ThreadPoolExecutor(workers)
        self._begun: list[Future[None]] = []
        self._is_marked = False

    def __enter__(self) -> MapDrawer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def draw(self, name: str, image: ListedImage, prediction: Prediction) -> None:
        """Begin to draw the map of an image."""
        if not self._is_marked:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / MAPS_MARK).touch()
            self._is_marked = True
        self._begun.append(self._pool.submit(self._draw, name, image, prediction))

    def wait(self) -> None:
        """Wait until everything begun is on the disk."""
        begun, self._begun = self._begun, []
        for one in begun:
            one.result()

    def _draw(self, name: str, image: ListedImage, prediction: Prediction) -> None:
        saliency = prediction.map_at_image()
        if self._kind == "overlay":
            picture = laid_over(decode_image(image.path), saliency)
        else:
            picture = Image.fromarray((saliency * 255).round().astype(np.uint8))
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:  # on the disk before the state that counts it
            picture.save(partial, "PNG")


def write_map_store(
    folder: Path,
    rows: Path,
    maps: Path,
    grid: Sequence[int],
    info: ModelInfo,
    *,
    teacher: str,
    map_of: str | None,
) -> None:
    """Write a map store of decision maps.

    Args:
        folder: Folder of the store.
        rows: File of JSON lines; bad images have no map.
        maps: File of the maps, float16, one after the other.
        grid: Size (h, w) of the maps.
        info: Description of the model.
        teacher: Name of the model in the metadata.
        map_of: Class of the maps, or None.
    """
    paths: list[str] = []
    values: list[list[float]] = []
    for row in read_rows(rows):
        if "error" not in row:
            paths.append(row["path"])
            values.append(list(row["probabilities"].values()))
    probabilities = np.array(values, np.float32).reshape(len(paths), len(info.classes))
    of = info.positive if map_of is None else map_of
    classes = (
        probabilities.argmax(1)
        if of is None
        else np.full(len(paths), info.classes.index(of), np.int64)
    ).astype(np.int32)
    form = info.image_format
    # Without a good image, the size of the maps is not known.
    stored = np.fromfile(maps, np.float16).reshape(len(paths), *(grid or (1, 1)))
    store = MapStore(
        StoreInfo(teacher, info.map_kind, form.fit, form.size, info.classes,
                  {"cam_class": "decision"}),
        np.array(paths, dtype=object),
        stored,
        classes,
        probabilities[np.arange(len(paths)), classes],
        probabilities,
    )  # fmt: skip
    write_store(folder, store)
