"""List of the runs of a study, which is read without its plan: planned_runs.json.

A plan needs the images and torch, whose import takes seconds; a list of runs does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from preceptor.utils.results import strict_json, write_atomically

FILE = "planned_runs.json"


@dataclass(frozen=True)
class PlannedRun:
    """Run of a study.

    Args:
        id: Run id.
        roles: Labels of its arms.
        backbone, alpha, seed: Backbone, α and seed; "", NaN and −1 if unknown. α is also NaN if it
            follows the losses.
        domain: Domain, or "".
    """

    id: str
    roles: tuple[str, ...]
    backbone: str
    alpha: float
    seed: int
    domain: str = ""


def write_planned_runs(runs: Iterable[PlannedRun], out: Path) -> None:
    """Write runs to a study folder.

    Raises:
        OSError: The file cannot be written.
    """
    rows = [asdict(one) for one in runs]
    write_atomically(out / FILE, strict_json(rows) + "\n")


def read_planned_runs(out: Path) -> list[PlannedRun] | None:
    """Runs of a study folder; None without a sound file."""
    try:
        rows = json.loads((out / FILE).read_text(encoding="utf-8"))
        return [
            PlannedRun(
                str(row["id"]),
                tuple(map(str, row["roles"])),
                str(row["backbone"]),
                math.nan if row["alpha"] is None else float(row["alpha"]),
                int(row["seed"]),
                str(row["domain"]),
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
