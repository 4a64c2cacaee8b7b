"""Run-length encoding of masks in COCO files: counts of pixels, column by column.

The counts alternate between outside and inside, beginning with outside. A string holds them in
base 32: 5 bits a character, plus 32 if more follow, plus 48 to make it printable; from the fourth
count on, the difference to the count two places before is stored, in two's complement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from preceptor.data.importers.shapes import Pixels

_Ints = NDArray[np.int64]


def decode_counts(counts: Sequence[int] | _Ints, width: int, height: int) -> Pixels:
    """Mask of uncompressed counts.

    Args:
        counts: Lengths of runs, which add up to width × height.
        width, height: Size of the mask.

    Returns:
        uint8 of shape (height, width) with 0 and 255.

    Raises:
        ValueError: The counts are negative or do not add up.

    Example:
        >>> decode_counts([1, 2, 3], 3, 2).tolist()
        [[0, 255, 0], [255, 0, 0]]
    """
    runs = np.asarray(counts)
    if runs.ndim != 1 or (len(runs) and not np.issubdtype(runs.dtype, np.integer)):
        raise ValueError("the counts are not a list of whole numbers")
    # Each first: a sum of huge counts could wrap around.
    if len(runs) and (int(runs.min()) < 0 or int(runs.max()) > width * height):
        raise ValueError(f"a count is not between 0 and {width * height}")
    total = int(runs.sum(dtype=object)) if len(runs) > 2**20 else int(runs.sum())
    if total != width * height:
        raise ValueError(f"the counts add up to {total:,}, not {width} × {height} pixels")
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def encode_counts(mask: NDArray[np.generic]) -> list[int]:
    """Uncompressed counts of a mask; inverse of `decode_counts`.

    Args:
        mask: (height, width); values other than 0 are inside.

    Example:
        >>> encode_counts(np.array([[0, 1, 0], [1, 0, 0]]))
        [1, 2, 3]
    """
    flat = (np.asarray(mask) != 0).T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    begin = [0, 0] if len(flat) and flat[0] else [0]
    edges = np.concatenate([np.array(begin), changes, np.array([len(flat)])])
    counts: list[int] = np.diff(edges).tolist()
    return counts


def decode_string(text: str | bytes) -> _Ints:
    """Counts of a compressed string.

    Raises:
        ValueError: The string is damaged.

    Example:
        >>> decode_string("123").tolist()
        [1, 2, 3]
    """
    raw = text.encode("ascii") if isinstance(text, str) else text
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, np.int64)
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("the counts contain a character that is not of the encoding")
    more = (codes & 32) != 0
    if more[-1]:
        raise ValueError("the counts are cut short")
    ends = np.flatnonzero(~more)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 11:
        raise ValueError("a count has too many characters")
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[ends] & 16) != 0
    values -= negative.astype(np.int64) << (5 * (ends - starts + 1))
    # From the fourth on, a count is a difference to the one two places before.
    counts = values.copy()
    if len(counts) > 3:
        counts[1::2] = np.cumsum(values[1::2])
        counts[2::2] = np.cumsum(values[2::2])
    return counts


def encode_string(counts: Sequence[int]) -> str:
    """Compressed string of counts; inverse of `decode_string`.

    Example:
        >>> encode_string([1, 2, 3])
        '123'
    """
    values = np.asarray(counts, np.int64).copy()
    if len(values) > 3:
        values[3:] -= np.asarray(counts, np.int64)[1:-2]
    letters: list[str] = []
    for value in values.tolist():
        while True:
            low, value = value & 31, value >> 5
            done = value == -1 if low & 16 else value == 0
            letters.append(chr(low + (0 if done else 32) + 48))
            if done:
                break
    return "".join(letters)
