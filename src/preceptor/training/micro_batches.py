"""Gradient accumulation: a batch computed in parts where memory does not hold it at once.

The optimiser's step is that of the whole batch: each part's loss counts by its share of the images.
Without batch norm the gradient is the same up to rounding; batch norm sees the statistics of a
part. Dropout draws other masks.
"""

from __future__ import annotations

from preceptor.data.loader import Batch, shares


def in_parts(batch: Batch, parts: int, least: int) -> list[Batch]:
    """A batch as consecutive parts whose sizes differ by one at most.

    Args:
        batch: B images.
        parts: Most parts.
        least: Fewest images of a part, where B allows it.
    """
    count = len(batch.labels)
    parts = min(parts, max(count // least, 1))
    if parts == 1:
        return [batch]
    return [
        Batch(*(None if value is None else value[part] for value in batch))  # type: ignore[arg-type]
        for part in shares(count, parts)
    ]


def more_parts(parts: int, largest: int, least: int) -> int | None:
    """Twice as many parts, or as many as there can be; None where there cannot be more.

    Args:
        parts: Now.
        largest: Images of the largest batch.
        least: Fewest images of a part.

    Example:
        >>> more_parts(1, 20, 2), more_parts(8, 20, 2), more_parts(10, 20, 2)
        (2, 10, None)
    """
    most = max(largest // least, 1)
    return min(2 * parts, most) if parts < most else None
