"""Score files of a study, each read from disk once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from preceptor.runtime.result_folder import is_finished, read_scores
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.steps import Arm, Member
from preceptor.study.used_weights import trained_again


class ScoreFiles:
    """Score tables of finished trainings and evaluations, read on first use and then cached.

    An instance represents one state of the store: steps that finish later do not appear in it. The
    tables are shared and must not be changed.

    All models score the same images. Therefore the columns that describe the images (path, label,
    source, split, group) are stored once for all tables in which they are equal, and each table
    needs only the memory of its scores.
    """

    def __init__(self) -> None:
        self._tables: dict[Path, pd.DataFrame | None] = {}
        self._images: list[pd.DataFrame] = []

    def validation(self, protocol: Protocol, member: Member) -> pd.DataFrame | None:
        """Scores of the validation sets; None if the training has not finished."""
        return self._read(protocol.run_folder(member.run))

    def test(self, protocol: Protocol, member: Member) -> pd.DataFrame | None:
        """Scores of the test sets; None if the weights of the run have not been evaluated."""
        folder = protocol.evaluation_folder(protocol.evaluation_id(member))
        known = folder in self._tables or not is_finished(folder)
        if not known and trained_again(folder, protocol.store):
            self._tables[folder] = None
        return self._read(folder)

    def tests_of(self, plan: Plan, arm: Arm) -> dict[int, pd.DataFrame]:
        """Scores of an arm on the test sets by seed; seeds without an evaluation are omitted."""
        found = {}
        for member in plan.members:
            if member.arm == arm and (scores := self.test(plan.protocol, member)) is not None:
                found[member.seed] = scores
        return found

    def _read(self, folder: Path) -> pd.DataFrame | None:
        if folder not in self._tables:
            self._tables[folder] = self._shared(folder) if is_finished(folder) else None
        return self._tables[folder]

    def _shared(self, folder: Path) -> pd.DataFrame:
        """Score table of a folder, sharing the image columns of an earlier table if equal."""
        table = read_scores(folder)
        scores = [name for name in map(str, table) if name.startswith("score_")]
        own = table.drop(columns=scores)
        for images in self._images:
            if images.equals(own):
                return images.assign(**{name: table[name] for name in scores})
        self._images.append(own.copy())
        return table
