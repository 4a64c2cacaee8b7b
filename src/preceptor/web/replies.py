"""Answers to requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """Answer to a request.

    Args:
        content: Body.
        kind: Content type.
        status: HTTP status.
        headers: Further headers.
    """

    content: bytes = b""
    kind: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def told(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """JSON answer, which no cache keeps."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Reply(
        text.encode("utf-8", "replace"),
        "application/json",
        status,
        {"cache-control": "no-store", **(headers or {})},
    )


def refused(status: int, message: str) -> Reply:
    """Answer to a request that is not carried out."""
    return told({"error": message}, status)
