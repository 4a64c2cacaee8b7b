"""Strict JSON with null instead of NaN, which is not part of the standard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON text of a value, with null for non-finite numbers.

    Args:
        value: Value of nested mappings, sequences, strings, numbers and None.
        indent: Number of blanks per level; None = one line.

    Example:
        >>> strict_json({"auc": float("nan"), "n": 3}, indent=None)
        '{"auc": null, "n": 3}'
    """
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def with_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    """Inverse of `strict_json` for numbers: NaN for null.

    Example:
        >>> with_nan({"auc": None, "n": 3.0})
        {'auc': nan, 'n': 3.0}
    """
    return {key: math.nan if value is None else value for key, value in values.items()}
