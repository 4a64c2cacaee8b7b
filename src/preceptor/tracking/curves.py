"""The curves of a training as its metrics.csv has them so far."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from preceptor.training.record import RunRecord, flat_metrics


@dataclass(frozen=True)
class Curves:
    """What has been measured after each epoch.

    Args:
        lines: Of the file, its head first; none where there is no file yet.
        rows: By epoch, in their order, the finite values by column; `epoch` is not among them.
    """

    lines: tuple[str, ...] = ()
    rows: tuple[tuple[int, dict[str, float]], ...] = ()

    def digest(self, epochs: int) -> str:
        """A hash of the first epochs, equal for equal values; "" where there are fewer."""
        if epochs > len(self.rows):
            return ""
        text = "\n".join(self.lines[: epochs + 1])
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def read_curves(folder: Path) -> Curves:
    """The curves of a run folder; a row that is not whole yet is left for the next time."""
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
    """What validation said of the epoch that was kept, as `kept/…`, from a run's `run.json`."""
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
