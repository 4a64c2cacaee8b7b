"""View of an image cache: the place of each row of a manifest in the shards.

A view is stored in a folder named by the hash of the format and of the manifest's contents, with
`places.npy` and `map_places.npy` (n, 2), shard and position of images and maps, `sizes.npy` (n, 2),
and `view.json` with the names of the shards. All of it is memory-mapped, so that processes share
its pages, and made again if it is missing or one of its shards is. The time of the last change of
`view.json` is that of its last use, or up to an hour before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preceptor.data.cache_lock import cache_in_use
from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.file_contents import FileContents, places_among
from preceptor.data.shards import ShardFolder, mapped_array
from preceptor.runtime.replace_file import replacing

VIEWS = "views"
"""Folder of a cache folder with the views."""
_LISTS = ("images", "maps")
_PLACES = ("places.npy", "map_places.npy")
_SIZES, _ABOUT = "sizes.npy", "view.json"
# Seconds between two records of the use of a view: each is a write.
_RECORDED = 3600.0


class ShardedArray:
    """Rows of a manifest in shards, which are memory-mapped when they are first used.

    Args:
        of: Folder of the shards.
        shards: Name and number of arrays of each shard.
        places: (n, 2) int32, shard and position of each row; −1 for none.
    """

    def __init__(
        self, of: ShardFolder, shards: Sequence[tuple[str, int]], places: NDArray[np.int32]
    ) -> None:
        self._of, self.shards, self.places = of, shards, places
        self._opened = _OpenedShards(of, shards)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an array."""
        return self._of.shape

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, …) arrays of rows, each of which has one."""
        places = self.places[rows]
        if not len(places):
            return np.empty((0, *self.shape), np.uint8)
        if len(self.shards) == 1:
            whole: NDArray[np.uint8] = self._opened[0][places[:, 1]]
            return whole
        opened = self._opened
        # Of all ways in which numpy copies single arrays, this one costs least for each of them.
        found = np.concatenate([opened[shard][position] for shard, position in places.tolist()])
        return found.reshape(len(places), *self.shape)


class _OpenedShards(dict[int, NDArray[np.uint8]]):
    """Memory-mapped arrays of shards by number, which are opened when they are looked up."""

    def __init__(self, of: ShardFolder, shards: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self._of, self._shards = of, shards

    def __missing__(self, number: int) -> NDArray[np.uint8]:
        found = self[number] = self._of.pixels(*self._shards[number])
        return found


@dataclass(frozen=True)
class MappedImages:
    """`ImageSource` of a memory-mapped cache.

    Args:
        side: Canvas side in pixels.
        sizes: (n, 2) width and height of the original images.
        images: Canvases, (side, side, C) each.
        maps: Human maps, (128, 128) each.
    """

    side: int
    sizes: NDArray[np.int32]
    images: ShardedArray
    maps: ShardedArray

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) canvases of these rows."""
        return self.images.take(rows)

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) human maps of these rows, zeros for rows without one."""
        mapped = self.maps.places[rows, 0] >= 0
        found = np.zeros((len(rows), *self.maps.shape), np.uint8)
        found[mapped] = self.maps.take(np.asarray(rows)[mapped])
        return found


@dataclass(frozen=True)
class ViewUse:
    """Use of a stored view.

    Args:
        folder: Its folder.
        last: Time of its last use in seconds since the epoch, up to an hour before.
        shards: Names of its shards; () for a damaged view.
    """

    folder: Path
    last: float
    shards: tuple[str, ...]


def view_uses(cache_dir: Path) -> Iterator[ViewUse]:
    """Uses of the stored views of a cache."""
    for folder in sorted((cache_dir / VIEWS).glob("[!.]*")):
        names: list[str] = []
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            names = [str(name) for one in _LISTS for name, _ in about[one]]
        with contextlib.suppress(OSError):  # removed meanwhile
            timed = folder / _ABOUT if (folder / _ABOUT).exists() else folder
            yield ViewUse(folder, timed.stat().st_mtime, tuple(names))


def open_view(cache_dir: Path, form: CanvasFormat, contents: FileContents) -> MappedImages | None:
    """Images and maps of a manifest in a cache; None if an image or a map is in no shard.

    The use of the view is recorded, unless the folder cannot be written.

    Args:
        cache_dir: Folder of the cache.
        form: Format of the canvases.
        contents: Content hashes of the manifest.
    """
    settings = f"{form.name} {ShardFolder.of_maps(cache_dir).folder.name} {contents.digest}"
    folder = cache_dir / VIEWS / hashlib.blake2b(settings.encode(), digest_size=12).hexdigest()
    folders = (ShardFolder.of_images(cache_dir, form), ShardFolder.of_maps(cache_dir))
    with cache_in_use(cache_dir):
        found = _stored(folder, form, folders, len(contents))
        if found is not None:
            _record_use(folder)
            return found
        made = _resolved(form, folders, contents)
        if made is None:
            return None
        with contextlib.suppress(OSError):  # otherwise it is in the memory of each process
            _store(folder, made)
            return _stored(folder, form, folders, len(contents)) or made
        return made


def _record_use(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if abs(time.time() - (folder / _ABOUT).stat().st_mtime) > _RECORDED:
            os.utime(folder / _ABOUT)


def _stored(
    folder: Path, form: CanvasFormat, folders: tuple[ShardFolder, ShardFolder], count: int
) -> MappedImages | None:
    """View of a folder, if all of its shards are there."""
    try:
        about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        sizes, *places = (mapped_array(folder / name) for name in (_SIZES, *_PLACES))
        shards = [[(str(name), int(many)) for name, many in about[one]] for one in _LISTS]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    if {one.shape for one in (sizes, *places)} != {(count, 2)}:
        return None
    arrays = []
    for of, names, place in zip(folders, shards, places, strict=True):
        if not all(of.is_whole(name, many) for name, many in names):
            return None
        arrays.append(ShardedArray(of, names, place))
    return MappedImages(form.side, sizes, *arrays)


def _store(folder: Path, view: MappedImages) -> None:
    folder.parent.mkdir(exist_ok=True)
    with replacing(folder) as partial:
        partial.mkdir()
        arrays = (view.images, view.maps)
        for name, array in zip(_PLACES, arrays, strict=True):
            np.save(partial / name, array.places)
        np.save(partial / _SIZES, view.sizes)
        about = {one: array.shards for one, array in zip(_LISTS, arrays, strict=True)}
        (partial / _ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")


def _resolved(
    form: CanvasFormat, folders: tuple[ShardFolder, ShardFolder], contents: FileContents
) -> MappedImages | None:
    """View from the content hashes of all shards."""
    images = _find(folders[0], contents.images, np.ones(len(contents), bool))
    if images is None:
        return None
    has_map: NDArray[np.bool_] = np.any(contents.maps, axis=1)
    maps = _find(folders[1], contents.maps, has_map)
    if maps is None:
        return None
    sizes = np.empty((len(contents), 2), np.int32)
    order = np.argsort(images.places[:, 0], kind="stable")
    bounds = np.searchsorted(images.places[order, 0], np.arange(len(images.shards) + 1))
    for number, (name, _) in enumerate(images.shards):
        rows = order[bounds[number] : bounds[number + 1]]
        try:
            sizes[rows] = folders[0].sizes(name)[images.places[rows, 1]]
        except OSError:  # removed since it was listed
            return None
    return MappedImages(form.side, sizes, images, maps)


def _find(
    of: ShardFolder, digests: NDArray[np.uint8], which: NDArray[np.bool_]
) -> ShardedArray | None:
    """Places of content hashes; None if one of `which` is in no shard."""
    shards = of.read()
    at = places_among(digests[which], shards.digests)
    if (at < 0).any():
        return None
    ends = np.cumsum(shards.counts)
    shard = np.searchsorted(ends, at, side="right")
    used, number = np.unique(shard, return_inverse=True)
    places = np.full((len(digests), 2), -1, np.int32)
    places[which, 0] = number
    places[which, 1] = at - (ends - shards.counts)[shard]
    return ShardedArray(of, [(shards.names[one], int(shards.counts[one])) for one in used], places)
