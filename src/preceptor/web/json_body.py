"""Bodies that are JSON objects."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from preceptor.web.refusal import malformed


def parse(body: bytes) -> dict[str, Any]:
    """Object of a JSON body.

    Raises:
        RefusedError: It is no JSON object (400).
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise malformed("the body is no JSON") from error
    if not isinstance(value, dict):
        raise malformed("the body is no JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
