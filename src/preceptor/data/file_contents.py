"""Content hashes of the images and maps of a table, 16 bytes each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preceptor.runtime.checksums import DIGEST_BYTES

# Rows whose hashes are side by side at a time.
_PART = 65_536
_NONE = "0" * (2 * DIGEST_BYTES)


@dataclass(frozen=True, eq=False)
class FileContents:
    """Content hashes of the images and maps of a table, by row.

    Args:
        images: (n, 16) uint8, BLAKE2b hashes of the images.
        maps: (n, 16) uint8, the same of their human maps; 0 for rows without one.
        digest: Hash of all of them, which is part of the names of image caches.
    """

    images: NDArray[np.uint8]
    maps: NDArray[np.uint8]
    digest: str

    @classmethod
    def of(cls, images: NDArray[np.uint8], maps: NDArray[np.uint8]) -> FileContents:
        """Content hashes with the hash of all of them."""
        state = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for start in range(0, len(images), _PART):
            part = slice(start, start + _PART)
            state.update(np.hstack([images[part], maps[part]]).tobytes())
        return cls(images, maps, state.hexdigest())

    @classmethod
    def together(cls, several: Sequence[FileContents]) -> FileContents:
        """Content hashes of several tables, one after the other."""
        return cls.of(
            np.concatenate([one.images for one in several]),
            np.concatenate([one.maps for one in several]),
        )

    def __len__(self) -> int:
        return len(self.images)

    def select(self, mask: NDArray[np.bool_]) -> FileContents:
        """Content hashes of the rows with `mask` true."""
        return FileContents.of(self.images[mask], self.maps[mask])


def written(hashes: NDArray[np.uint8]) -> list[str]:
    """Hashes in hex; "" for those that are 0.

    Args:
        hashes: (n, 16) uint8.

    Example:
        >>> written(np.array([[255] * 16, [0] * 16], np.uint8))
        ['ffffffffffffffffffffffffffffffff', '']
    """
    text, size = np.ascontiguousarray(hashes).tobytes().hex(), 2 * DIGEST_BYTES
    found = [text[start : start + size] for start in range(0, len(text), size)]
    return ["" if one == _NONE else one for one in found]


def packed(hashes: list[str]) -> NDArray[np.uint8]:
    """Hashes as numbers, the inverse of `written`.

    Args:
        hashes: n hashes in hex, "" for none.

    Returns:
        (n, 16) uint8.

    Example:
        >>> packed(["", "0f" * 16])[:, 0].tolist()
        [0, 15]
    """
    data = bytes.fromhex("".join([one or _NONE for one in hashes]))
    return np.frombuffer(data, np.uint8).reshape(-1, DIGEST_BYTES)


def arrow_hashes(hashes: NDArray[np.uint8]) -> pa.Array:
    """(n, 16) hashes as an Arrow array, without a copy if they are contiguous."""
    data = pa.py_buffer(np.ascontiguousarray(hashes))
    kind = pa.binary(DIGEST_BYTES)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(hashes), [None, data])


def places_among(hashes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Place of each hash among others, of the first of equal ones; −1 for none.

    Args:
        hashes: (n, 16) uint8.
        others: (m, 16) uint8.

    Returns:
        (n,) int64.

    Example:
        >>> others = np.repeat(np.array([[7], [5], [7]], np.uint8), 16, axis=1)
        >>> places_among(others[[2, 1]], others), places_among(others[:1] + 1, others)
        (array([0, 1]), array([-1]))
    """
    place = pc.index_in(arrow_hashes(hashes), value_set=arrow_hashes(others))
    found: NDArray[np.int64] = place.fill_null(-1).to_numpy().astype(np.int64)
    return found
