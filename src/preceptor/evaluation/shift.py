"""Displacement of one map against another, by their cross-correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

_Floats = NDArray[np.float64]


def cross_correlation(a: _Floats, b: _Floats, reach: int) -> _Floats | None:
    """Correlation of two maps for every displacement up to a reach.

    The entry (reach + dy, reach + dx) is Σ a'(x + dx, y + dy) b'(x, y) / √(Σ a'² Σ b'²), where a'
    and b' are the maps minus their means, 0 outside the image. Without displacement it is Pearson's
    correlation.

    Args:
        a, b: Maps of one shape (height, width).
        reach: Largest displacement in pixels along each axis.

    Returns:
        (2 reach + 1, 2 reach + 1); None if a map is constant.

    Example:
        >>> a, b = np.zeros((2, 8, 8))
        >>> a[3, 5] = b[2, 3] = 1
        >>> dx, dy, _ = peak(cross_correlation(a, b, 3))
        >>> round(dx, 2), round(dy, 2)
        (2.0, 1.0)
    """
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if norm < 1e-12:
        return None
    size = [fft.next_fast_len(side + reach, real=True) for side in a.shape]
    product = fft.rfft2(a, size) * np.conj(fft.rfft2(b, size))
    whole = fft.irfft2(product, size)
    steps = np.arange(-reach, reach + 1)
    found: _Floats = whole[np.ix_(steps % size[0], steps % size[1])] / norm
    return found


def peak(surface: _Floats) -> tuple[float, float, float]:
    """Displacement with the highest correlation.

    Args:
        surface: Result of `cross_correlation`, or a mean of several.

    Returns:
        (dx, dy, correlation): by how much the first map lies to the right of the second and below
        it, in fractions of a pixel from a parabola through the neighbors of the maximum.
    """
    reach = len(surface) // 2
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)

    def between(line: _Floats, at: int) -> float:
        if not 0 < at < len(line) - 1:
            return 0.0
        low, mid, high = line[at - 1 : at + 2]
        bend = low - 2 * mid + high
        return float((low - high) / (2 * bend)) if bend < -1e-9 else 0.0

    dx = column - reach + between(surface[row], int(column))
    dy = row - reach + between(surface[:, column], int(row))
    return float(dx), float(dy), float(surface[row, column])
