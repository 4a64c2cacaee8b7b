"""Metrics on resamples, kept for further comparisons on the same resamples."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Blocks = Iterator[tuple[npt.NDArray[np.float32], int]]
"""Counts of images in some resamples, and the number of those that were drawn again."""


class ResampledValues:
    """Metric of rows of scores on resamples; the rows used last are kept.

    A study compares each model with many others on the same test images, and equal seeds give equal
    resamples.

    Args:
        room: Maximum number of bytes of the values kept.
    """

    def __init__(self, room: int = 2**26) -> None:
        self._room = room
        self._bytes = 0
        self._rows: OrderedDict[bytes, tuple[Array, int]] = OrderedDict()

    def of(
        self,
        resamples: Sequence[Any],
        rows: Sequence[Array],
        measure: Callable[[Array, npt.NDArray[np.float32]], Array],
        draw: Callable[[], Blocks],
    ) -> tuple[list[Array], int]:
        """Metric of each row on each resample, and the number of resamples drawn again.

        Args:
            resamples: All that determines the resamples and the metric.
            rows: Scores of one model each.
            measure: Function of a row and counts (R, n) that returns (R,) values.
            draw: Function that draws the resamples; called if the values of some row are not known.
        """
        of_all = _digest(*resamples)
        keys = [_digest(of_all, row) for row in rows]
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._rows}
        found = {key: self._rows[key] for key in keys if key not in missing}
        if missing:
            parts: dict[bytes, list[Array]] = {key: [] for key in missing}
            redrawn = 0
            for counts, again in draw():
                redrawn += again
                for key, row in missing.items():
                    parts[key].append(measure(row, counts))
            found |= {key: (np.concatenate(part), redrawn) for key, part in parts.items()}
        for key in dict.fromkeys(keys):
            self._keep(key, found[key])
        return [found[key][0] for key in keys], found[keys[0]][1]

    def _keep(self, key: bytes, entry: tuple[Array, int]) -> None:
        """Keep the values of a row, and forget those that were not used for the longest time."""
        if key not in self._rows:
            self._bytes += entry[0].nbytes
        self._rows[key] = entry
        self._rows.move_to_end(key)
        while self._bytes > self._room:
            _, (values, _) = self._rows.popitem(last=False)
            self._bytes -= values.nbytes


def _digest(*parts: Any) -> bytes:
    """Digest of arrays (with type and shape), bytes and other values."""
    found = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            found.update(f"{part.dtype.str} {part.shape} ".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        else:
            found.update(f"{list(part) if isinstance(part, np.ndarray) else part!r} ".encode())
    return found.digest()
