"""Values of foreign JSON, checked one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from preceptor.data.importers.shapes import Floats


def number(value: Any) -> float | None:
    """Finite number, or None. Texts of numbers are not accepted, and neither are booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def whole(value: Any) -> int | None:
    """Whole number, or None; 3.0 is one."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height of an image, both at least 1, or None."""
    wide, high = whole(width), whole(height)
    return (wide, high) if wide and high and wide > 0 and high > 0 else None


def numbers(values: Any) -> Floats | None:
    """Array of finite numbers from a flat list, or None."""
    if not isinstance(values, list) or not all(type(one) in (int, float) for one in values):
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except (OverflowError, ValueError, TypeError):
        return None
    return array if np.isfinite(array).all() else None


def pairs(values: Any) -> Floats | None:
    """(n, 2) array of finite numbers from a list of pairs, or None."""
    if not isinstance(values, list) or not all(
        isinstance(one, list | tuple) and len(one) == 2 for one in values
    ):
        return None
    flat = numbers([one for pair in values for one in pair])
    return None if flat is None else flat.reshape(-1, 2)


def text_of(value: Any) -> str:
    """Text, "" for null; numbers are written as text."""
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, bool | list | dict) else str(value)


def shown(value: Any, limit: int = 60) -> str:
    """Value in a message, cut."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
