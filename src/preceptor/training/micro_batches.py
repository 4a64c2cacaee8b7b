"""Gradient accumulation over micro-batches, for batches that do not fit into memory.

The optimizer step is that of the whole batch: the loss of each micro-batch is weighted by its share
of the images. Without batch norm the gradient is the same up to rounding; batch norm uses the
statistics of a micro-batch, and `alpha: auto` the losses of a micro-batch. Dropout masks differ.
"""

from __future__ import annotations

from preceptor.data.loader import Batch, shares


def in_parts(batch: Batch, parts: int, least: int) -> list[Batch]:
    """Divide a batch into consecutive micro-batches whose sizes differ by at most one.

    Args:
        batch: Batch of B images.
        parts: Maximum number of micro-batches.
        least: Minimum number of images of a micro-batch, if B allows it.
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
    """Next larger number of micro-batches (at most double); None if it cannot be increased.

    Args:
        parts: Current number.
        largest: Number of images of the largest batch.
        least: Minimum number of images of a micro-batch.

    Example:
        >>> more_parts(1, 20, 2), more_parts(8, 20, 2), more_parts(10, 20, 2)
        (2, 10, None)
    """
    most = max(largest // least, 1)
    return min(2 * parts, most) if parts < most else None
