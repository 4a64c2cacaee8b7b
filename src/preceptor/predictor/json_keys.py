"""Values of JSON objects from other programs, with checks of keys and types."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

from preceptor.errors import InputError, is_control


class JsonKeys:
    """Values of a JSON object with exactly the given keys, read with checks of their types.

    Args:
        values: Value of JSON.
        owner: Name of the object in messages.
        keys: Its keys.

    Raises:
        InputError: It is no object, or a key is missing or unknown; the methods raise it for
            invalid values.

    Example:
        >>> JsonKeys({"size": 64}, "the format", {"size"}).integer("size", (32, 64))
        64
    """

    def __init__(self, values: object, owner: str, keys: set[str]) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{owner} is not a JSON object")
        if values.keys() != keys:
            wrong = sorted(values.keys() ^ keys)[0]
            what = "unknown" if wrong in values else "missing"
            raise InputError(f"{owner}: key {wrong!r} is {what}")
        self.values: dict[str, Any] = values
        self._owner = owner

    def wrong(self, key: str, expected: str) -> InputError:
        """Error on the value of a key."""
        text = json.dumps(self.values[key])
        shown = text if len(text) <= 80 else f"{text[:80]} …"
        return InputError(f"{self._owner}: {key} is {shown}; expected {expected}")

    def string(self, key: str) -> str:
        """Text in one line."""
        value = self.values[key]
        if not _is_text(value):
            raise self.wrong(key, "text in one line")
        return str(value)

    def strings(self, key: str) -> tuple[str, ...]:
        """List of texts, each in one line."""
        value = self.values[key]
        if not isinstance(value, list) or not all(map(_is_text, value)):
            raise self.wrong(key, "a list of names, each in one line")
        return tuple(value)

    def number(self, key: str) -> float:
        """Finite number."""
        value = self.values[key]
        if not is_number(value):
            raise self.wrong(key, "a number")
        return float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """List of finite numbers."""
        value = self.values[key]
        if not (isinstance(value, list) and len(value) == count and all(map(is_number, value))):
            raise self.wrong(key, f"{count} numbers")
        return tuple(float(one) for one in value)

    def increasing(
        self, key: str, *, low: float = -math.inf, high: float = math.inf
    ) -> tuple[float, ...]:
        """List of any length of numbers in [low, high], none below the one before."""
        value = self.values[key]
        if not (isinstance(value, list) and all(map(is_number, value))):
            raise self.wrong(key, "a list of numbers")
        if any(a > b for a, b in pairwise([low, *value, high])):
            within = "" if math.isinf(low) else f" from {low:g} to {high:g}"
            raise self.wrong(key, f"increasing numbers{within}")
        return tuple(float(one) for one in value)

    def integer(self, key: str, allowed: range | tuple[int, ...]) -> int:
        """Integer of a range or a choice."""
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            raise self.wrong(key, f"an integer from {min(allowed)} to {max(allowed)}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        """One of several texts."""
        value = self.values[key]
        if value not in choices:
            raise self.wrong(key, f"one of {', '.join(choices)}")
        return value


def is_number(value: object) -> bool:
    """Whether a value is a finite number and not a bool."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any(map(is_control, value))


def no_constant(name: str) -> float:
    """Refuse NaN and infinity: the argument `parse_constant` of `json.loads`."""
    raise ValueError(f"{name} is no JSON value")
