"""Times in the database: UTC, ISO 8601, milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Present time."""
    return in_utc(datetime.now(UTC))


def in_utc(time: datetime) -> str:
    """Time with a zone as text.

    Example:
        >>> in_utc(datetime.fromisoformat("2026-01-02T03:04:05+01:00"))
        '2026-01-02T02:04:05.000Z'
    """
    return time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
