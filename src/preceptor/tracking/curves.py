"""Curves of a training, read from its metrics.csv."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from preceptor.training.record import RunRecord, flat_metrics


@dataclass(frozen=True)
class Curves:
    """Metrics after each epoch.

    Args:
        lines: Lines of the file, header first; empty if there is no file yet.
        rows: Finite values by column for each epoch in order, without the column `epoch`.
    """

    lines: tuple[str, ...] = ()
    rows: tuple[tuple[int, dict[str, float]], ...] = ()

    def digest(self, epochs: int) -> str:
        """Hash of the values of the first epochs; "" if there are fewer."""
        if epochs > len(self.rows):
            return ""
        text = "\n".join(self.lines[: epochs + 1])
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def read_curves(folder: Path) -> Curves:
    """Read the curves of a run folder; an incomplete last row is skipped."""
    try:
        text = (folder / "metrics.csv").read_text(encoding="utf-8")
    except FileNotFoundError:
        return Curves()
    whole = text[: text.rfind("\n") + 1].splitlines()
    if not whole:
        return Curves()
    head, *lines = csv.reader(whole)
    rows = []
    for cells in lines:
        row = dict(zip(head, map(_number, cells), strict=False))
        epoch = row.pop("epoch", math.nan)
        if len(cells) != len(head) or not math.isfinite(epoch):
            break
        rows.append((int(epoch), {key: one for key, one in row.items() if math.isfinite(one)}))
    return Curves(tuple(whole[: len(rows) + 1]), tuple(rows))


def kept_epoch(record: RunRecord) -> dict[str, float]:
    """Validation metrics of the selected epoch as `kept/…`, from a run's `run.json`."""
    return {
        f"kept/{name}": float(value)
        for name, value in flat_metrics(record.sets).items()
        if math.isfinite(value)
    }


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
