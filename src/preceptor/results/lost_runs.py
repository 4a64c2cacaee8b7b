"""Trainings of the tables of a study folder that new tables could not have any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preceptor.results.read import read_table
from preceptor.results.schema import RUNS
from preceptor.runtime.result_folder import is_finished
from preceptor.study.study_plan import StudyPlan


@dataclass(frozen=True)
class LostRuns:
    """Trainings that the tables of a study folder have, and new tables would not.

    Args:
        trainings: Number of finished trainings in the tables.
        missing: Descriptions of those whose folder has no result any more.
        changed: Descriptions of those that are no part of the study any more, since its images or
            settings have changed.
    """

    trainings: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        """Numbers, and the first training of each kind."""
        found = []
        for several, why in (
            (self.missing, "missing"),
            (self.changed, "of other data or settings"),
        ):
            if several:
                found.append(f"{len(several)} of {self.trainings} {why} (first: {several[0]})")
        return ", ".join(found)


def lost_runs(study: StudyPlan, out: Path) -> LostRuns | None:
    """Trainings in the tables of a study folder that are missing, or of other data or settings.

    Args:
        study: Plan of the study with its choices.
        out: Study folder.

    Returns:
        The trainings; None if there are none, or no tables.

    Raises:
        InputError: runs.csv is no table of runs.
    """
    table = read_table(out / "runs.csv", RUNS)
    table = table[table["finished"].astype(bool)].drop_duplicates("run")
    known = {one.id for one in study.planned_runs()}
    missing, changed = [], []
    for row in table.to_dict("records"):
        name = f"{row['role']} {row['backbone']}, seed {row['seed']}: {row['run']}"
        if not is_finished(study.first.protocol.run_folder(row["run"])):
            missing.append(name)
        # Every study has the runs of Baseline 2, whatever it selects.
        elif row["role"] == "baseline2" and row["run"] not in known:
            changed.append(name)
    return LostRuns(len(table), tuple(missing), tuple(changed)) if missing or changed else None
