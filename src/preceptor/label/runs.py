"""Run-length code of the bits of a rectangle.

The bits in row order are alternating runs, the first of zeros (it may be empty), each an unsigned
LEB128 integer. `static/runs.js` has the same functions; tests/label/runs.json has cases for both.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

LIMIT = 100_000_000
"""Largest number of bits, and of pixels of an image."""
_BYTES = 4  # of a run at most: 2²⁸ > LIMIT

Bits = NDArray[np.bool_]


def encode_runs(bits: Bits) -> bytes:
    """Encode the bits of a rectangle.

    Args:
        bits: bool of shape (h, w), or flat.

    Example:
        >>> encode_runs(np.array([[False, True], [True, True]])).hex()
        '0103'
    """
    flat = np.asarray(bits, bool).ravel()
    if not flat.size:
        return b""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], edges))
    lengths = np.diff(np.concatenate((starts, [flat.size])))
    if flat[0]:
        lengths = np.concatenate(([0], lengths))
    return _leb128(lengths)


def decode_runs(code: bytes, size: int) -> Bits:
    """Decode the bits of a rectangle.

    Args:
        code: Result of `encode_runs`.
        size: Number of bits, w·h.

    Returns:
        bool of shape (size,).

    Raises:
        ValueError: The code is malformed, or the runs do not add up to `size`.

    Example:
        >>> decode_runs(bytes([1, 3]), 4).tolist()
        [False, True, True, True]
    """
    lengths = run_lengths(code, size)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths)


def run_lengths(code: bytes, size: int) -> NDArray[np.int64]:
    """Lengths of the runs, checked; see `decode_runs`."""
    if not 0 < size <= LIMIT:
        raise ValueError(f"the rectangle has {size:,} pixels; 1 to {LIMIT:,} are possible")
    raw = np.frombuffer(code, np.uint8)
    if not raw.size:
        raise ValueError("the runs are empty")
    last = np.flatnonzero(raw < 0x80)
    if not last.size or last[-1] != raw.size - 1:
        raise ValueError("the last run is cut short")
    first = np.concatenate(([0], last[:-1] + 1))
    widths = last - first + 1
    if widths.max() > _BYTES:
        raise ValueError("a run is too long")
    if (raw[last[widths > 1]] == 0).any():
        raise ValueError("a run has needless bytes")
    lengths = np.zeros(len(first), np.int64)
    for at in range(int(widths.max())):
        there = widths > at
        lengths[there] |= (raw[first[there] + at] & 0x7F).astype(np.int64) << (7 * at)
    if (lengths[1:] == 0).any():
        raise ValueError("a run other than the first is empty")
    total = int(lengths.sum())
    if total != size:
        raise ValueError(f"the runs have {total:,} pixels, the rectangle has {size:,}")
    return lengths


def check_tight(code: bytes, w: int, h: int) -> None:
    """Check that a rectangle is the bounding box of its ones.

    Raises:
        ValueError: The code is malformed, or an edge of the rectangle has no one.

    Example:
        >>> check_tight(bytes([1, 1]), 2, 1)
        Traceback (most recent call last):
        ValueError: the rectangle is larger than its marked pixels
    """
    lengths = run_lengths(code, w * h)
    ends = np.cumsum(lengths)
    starts, stops = ends[::2], ends[1::2]  # of the runs of ones
    if not stops.size:
        raise ValueError("no pixel is marked")
    starts = starts[: stops.size]
    rows = starts[0] < w and stops[-1] > w * (h - 1)
    left, right = starts % w, (stops - 1) % w
    across = starts // w != (stops - 1) // w  # a run over the end of a row touches both sides
    if not (rows and ((left == 0) | across).any() and ((right == w - 1) | across).any()):
        raise ValueError("the rectangle is larger than its marked pixels")


def to_text(code: bytes) -> str:
    """Code in base64, as in JSON."""
    return base64.b64encode(code).decode("ascii")


def from_text(text: str) -> bytes:
    """Code from base64.

    Raises:
        ValueError: It is no base64.
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("the runs are no base64") from error


def bounding_runs(mask: Bits) -> tuple[int, int, int, int, bytes] | None:
    """Bounding box (x, y, w, h) of the ones of a mask, and its code; None if there is no one.

    Args:
        mask: bool of shape (height, width).
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    y, x = int(rows[0]), int(columns[0])
    h, w = int(rows[-1]) - y + 1, int(columns[-1]) - x + 1
    return x, y, w, h, encode_runs(mask[y : y + h, x : x + w])


def _leb128(values: NDArray[np.int64]) -> bytes:
    if values.size and int(values.max()) < 0x80:
        return bytes(values.astype(np.uint8))
    columns = np.zeros((len(values), _BYTES), np.uint8)
    used = np.zeros((len(values), _BYTES), bool)
    rest = values.astype(np.int64).copy()
    for at in range(_BYTES):
        used[:, at] = (rest > 0) | (at == 0)
        columns[:, at] = (rest & 0x7F) | np.where(rest >> 7 > 0, 0x80, 0)
        rest >>= 7
    return columns[used].tobytes()
