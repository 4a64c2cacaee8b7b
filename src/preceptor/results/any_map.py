"""Control that stands for any map: the best of those whose maps do not know the place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preceptor.results.rows import Row
from preceptor.results.score_files import ScoreFiles
from preceptor.study.controls import Control
from preceptor.study.plan import Plan
from preceptor.study.selection import Candidate, choose
from preceptor.training.record import mean_map_correlation

ANY_MAP: tuple[Control, ...] = ("shuffled", "centre", "pca", "shuffled_human")
"""Controls that guide by maps which do not know the place of the evidence in their image."""


@dataclass(frozen=True)
class AnyMap:
    """Control that stands for any map, selected on validation.

    Args:
        control: Key of the control.
        among: Keys of the controls that were compared.
        reason: Reason of the selection, in one sentence.
    """

    control: Control
    among: tuple[Control, ...]
    reason: str


def select_any_map(
    plan: Plan, rows: Mapping[str, Row], backbone: str, files: ScoreFiles
) -> AnyMap | None:
    """Best control of `ANY_MAP` on validation, among those whose every seed has finished.

    As for all selections, only the seeds of the first look count.

    Args:
        plan: Plan of one domain.
        rows: Rows of the main table by key, whose settings are selected.
        backbone: Backbone of the controls.
        files: Score files of the study.

    Returns:
        The control, or None if no control has finished.
    """
    protocol, study = plan.protocol, plan.protocol.study
    candidates = []
    for key in ANY_MAP:
        if key not in rows or backbone not in rows[key].arms:
            continue
        arm = rows[key].arms[backbone]
        members = {member.seed: member for member in plan.members if member.arm == arm}
        of_seeds = [members[seed] for seed in study.first_seeds if seed in members]
        scores = [
            table
            for member in of_seeds
            if (table := files.validation(protocol, member)) is not None
        ]
        if len(scores) == len(study.first_seeds):
            agreement = mean_map_correlation(protocol.run_folder(one.run) for one in of_seeds)
            candidates.append(Candidate(key, arm.setting, scores, agreement))
    if not candidates:
        return None
    choice = choose(
        candidates,
        classes=protocol.workspace.manifest.classes,
        positive=study.positive,
        rule=study.selection,
        draws=study.draws,
        negatives=study.validation_negatives,
    )
    among = tuple(key for key in ANY_MAP if key in {one.name for one in candidates})
    (control,) = (key for key in among if key == choice.winner)
    return AnyMap(control, among, choice.reason)
