"""Distinct files of a table of images, the rows in which they occur, and what was found of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.file_contents import FileContents
from preceptor.data.file_index import KnownFiles
from preceptor.data.images import ImageError
from preceptor.runtime.checksums import DIGEST_BYTES


@dataclass
class Decoded:
    """Results of a decoding pass by row.

    Args:
        images: (n,) paths; "" for missing files.
        maps: (n,) paths of the human maps; "" for none.
        image_size: (n, 2) int32 width and height; 0 for images that were not decoded.
        map_size: (n, 2) int32 width and height of the maps.
        wrong_images: Reasons of images that cannot be decoded, by row.
        wrong_maps: Reasons of maps that cannot be decoded, by row.
    """

    images: Sequence[str]
    maps: Sequence[str]
    image_size: NDArray[np.int32]
    map_size: NDArray[np.int32]
    wrong_images: dict[int, str] = field(default_factory=dict)
    wrong_maps: dict[int, str] = field(default_factory=dict)

    def raise_first(self) -> None:
        """Raise the error of the first row that cannot be decoded, if any.

        Raises:
            ImageError: An image or a map cannot be decoded.
        """
        wrong = [(row, self.images[row], why) for row, why in self.wrong_images.items()]
        wrong += [(row, self.maps[row], why) for row, why in self.wrong_maps.items()]
        if wrong:
            _, path, why = min(wrong)
            raise ImageError(path, why)


@dataclass
class WrongFiles:
    """Reasons of files that cannot be decoded as images or as maps, by position."""

    images: dict[int, str] = field(default_factory=dict)
    maps: dict[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.images or self.maps)


class FileTable:
    """Distinct files of a table, with the rows in which they occur.

    Args:
        images: (n,) absolute paths or other locations of the images; "" for missing files.
        maps: (n,) the same of their human maps, or "".
    """

    def __init__(self, images: Sequence[str], maps: Sequence[str]) -> None:
        self.images, self.maps = images, maps
        both = pd.Series([*images, *maps], dtype=object)
        codes, paths = pd.factorize(both[both != ""])
        at = np.full(len(both), -1, np.int64)
        at[(both != "").to_numpy(bool)] = codes
        self.paths: list[str] = list(paths)
        self._image, self._map = at[: len(images)], at[len(images) :]
        self.has_map = self._map >= 0
        self.is_image = np.zeros(len(self.paths), bool)
        self.is_map = np.zeros(len(self.paths), bool)
        self.is_image[self._image[self._image >= 0]] = True
        self.is_map[self._map[self.has_map]] = True

    @property
    def key(self) -> str:
        """Hash of the table's paths."""
        text = "\n".join([*self.images, "", *self.maps])
        return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=12).hexdigest()

    def is_decoded(self, files: KnownFiles) -> NDArray[np.bool_]:
        """(m,) whether each file is known to be valid in all of its uses."""
        return (files.as_image | ~self.is_image) & (files.as_map | ~self.is_map)

    def contents(self, files: KnownFiles) -> FileContents | None:
        """Content hashes of images and maps by row; None if a file's content is not known."""
        if not files.known.all():
            return None
        known = np.vstack([files.digest, np.zeros((1, DIGEST_BYTES), np.uint8)])
        return FileContents.of(known[self._image], known[self._map])

    def states(self, files: KnownFiles) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n, 3) states of images and of maps by row; 0 for missing files."""
        known = np.vstack([files.state, np.zeros((1, 3), np.int64)])
        return known[self._image], known[self._map]

    def rows_of_image(self, at: int) -> NDArray[np.int64]:
        """Rows in which a file is the image."""
        return self._image_rows[at]

    @cached_property
    def _image_rows(self) -> _RowsOf:
        return _RowsOf(self._image, len(self.paths))

    @cached_property
    def _map_rows(self) -> _RowsOf:
        return _RowsOf(self._map, len(self.paths))

    def rows_of_map(self, at: int) -> NDArray[np.int64]:
        """Rows in which a file is the map."""
        return self._map_rows[at]

    def decoded(self, files: KnownFiles, wrong: WrongFiles) -> Decoded:
        """Results by row."""
        size = np.vstack([files.size, np.zeros((1, 2), np.int32)])
        as_image, as_map = np.append(files.as_image, False), np.append(files.as_map, False)
        found = Decoded(
            self.images,
            self.maps,
            size[self._image] * as_image[self._image, None],
            size[self._map] * as_map[self._map, None],
        )
        for at, why in wrong.images.items():
            found.wrong_images |= dict.fromkeys(self.rows_of_image(at).tolist(), why)
        for at, why in wrong.maps.items():
            found.wrong_maps |= dict.fromkeys(self.rows_of_map(at).tolist(), why)
        return found


class _RowsOf:
    """Rows of a table by file.

    Args:
        column: (n,) position of the file of each row; -1 for none.
        count: Number of files.
    """

    def __init__(self, column: NDArray[np.int64], count: int) -> None:
        self._order = np.argsort(column, kind="stable")
        # From here on for file 0, 1, …: one look-up for each file would take longer than its hash.
        self._bounds = np.searchsorted(column[self._order], np.arange(count + 1))

    def __getitem__(self, at: int) -> NDArray[np.int64]:
        return self._order[self._bounds[at] : self._bounds[at + 1]]
