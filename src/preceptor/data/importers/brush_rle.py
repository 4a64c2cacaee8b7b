"""Run-length encoding of Label Studio's brush: bytes of RGBA pixels, packed bit by bit.

    32 bits  number of values (4 per pixel: red, green, blue, opacity)
     5 bits  bits per value, minus 1
    4 × 4 bits  sizes of run lengths: bits per length, minus 1, of four kinds
    blocks   1 bit: 1 = one value repeated, 0 = values listed; 2 bits: kind of the length;
             the length, minus 1; one value, or as many values as the length says

Only the opacity carries the mask. Bits are counted from the most significant one of each byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from preceptor.data.importers.shapes import MAX_PIXELS, Pixels

# Sizes of run lengths that the editor writes.
_SIZES = (3, 4, 8, 16)
_FULL = 1 << 16


def decode_brush(rle: Sequence[int] | bytes, width: int, height: int) -> Pixels:
    """Opacity of an encoded brush stroke.

    Args:
        rle: Bytes, as a list of whole numbers from 0 to 255.
        width, height: Size of the image in pixels.

    Returns:
        uint8 of shape (height, width), 0 = not painted.

    Raises:
        ValueError: The bytes are damaged or of another size.
    """
    try:
        data = bytes(rle)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("the RLE is not a list of whole numbers from 0 to 255") from None
    number = int.from_bytes(data[:4])
    if number > 4 * MAX_PIXELS:
        raise ValueError(f"the RLE has {number:,} values, which are too many to decode safely")
    if number != width * height * 4:
        raise ValueError(
            f"the RLE has {number:,} values, not 4 × {width} × {height}; the image has another size"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    reader = _Bits(bits)
    reader.at = 32
    word = reader.take(5) + 1
    sizes = [reader.take(4) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(f"the RLE has values of {word} bits; 8 are expected")
    runs: list[NDArray[np.uint8]] = []
    done = 0
    while done < number:
        repeated = reader.take(1)
        length = reader.take(sizes[reader.take(2)]) + 1
        if done + length > number:
            raise ValueError("the runs of the RLE are longer than the image")
        if repeated:
            runs.append(np.full(length, reader.take(word), np.uint8))
        else:
            runs.append(reader.take_many(length, word))
        done += length
    values = np.concatenate(runs) if runs else np.zeros(0, np.uint8)
    return np.ascontiguousarray(values[3::4].reshape(height, width))


class _Bits:
    """Reader of numbers from bits."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        # Text, since int() of a slice is the fastest way to read a few bits.
        self.text = (bits + 48).tobytes()
        self.bits = bits
        self.at = 0

    def take(self, count: int) -> int:
        """Next number of `count` bits."""
        end = self.at + count
        if end > len(self.text):
            raise ValueError("the RLE is cut short")
        value = int(self.text[self.at : end], 2)
        self.at = end
        return value

    def take_many(self, number: int, count: int) -> NDArray[np.uint8]:
        """Next `number` numbers of `count` bits, at most 8."""
        end = self.at + number * count
        if end > len(self.bits):
            raise ValueError("the RLE is cut short")
        rows = self.bits[self.at : end].reshape(number, count)
        self.at = end
        padded = np.zeros((number, 8), np.uint8)
        padded[:, 8 - count :] = rows
        return np.packbits(padded, axis=1)[:, 0]


def encode_brush(mask: NDArray[np.uint8]) -> list[int]:
    """Encoded brush stroke of a mask; inverse of `decode_brush`.

    Args:
        mask: uint8 of shape (height, width), the opacity.

    Returns:
        Bytes as whole numbers, as in the JSON of Label Studio.

    Example:
        >>> mask = np.array([[0, 255], [255, 255]], np.uint8)
        >>> decode_brush(encode_brush(mask), 2, 2).tolist()
        [[0, 255], [255, 255]]
    """
    flat = np.asarray(mask, np.uint8).reshape(-1)
    # All four channels of a pixel have one value, so that runs of pixels are runs of values.
    cuts = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], cuts]) if len(flat) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(flat))) * 4
    values = flat[starts]
    # Runs longer than the largest length are divided.
    pieces = -(-lengths // _FULL)
    values = np.repeat(values, pieces)
    last = np.cumsum(pieces) - 1
    split = np.full(int(pieces.sum()), _FULL, np.int64)
    split[last] = lengths - (pieces - 1) * _FULL
    chunks = [format(len(flat) * 4, "032b"), format(7, "05b")]
    chunks += [format(size - 1, "04b") for size in _SIZES]
    for length, value in zip(split.tolist(), values.tolist(), strict=True):
        kind = next(k for k, size in enumerate(_SIZES) if length <= 1 << size)
        chunks.append(f"1{kind:02b}{length - 1:0{_SIZES[kind]}b}{value:08b}")
    text = "".join(chunks)
    bits = np.frombuffer(text.encode("ascii"), np.uint8) - 48
    return np.packbits(bits).tolist()
