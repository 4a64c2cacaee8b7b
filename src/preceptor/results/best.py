"""Selected Student of a study, written to `best/` as a model folder with thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.evaluation.operating_points import RULES
from preceptor.evaluation.scores import fixed_thresholds, set_auc, validation_rows
from preceptor.models.model_folder import load_own_model, save_model
from preceptor.results.score_files import ScoreFiles
from preceptor.runtime.replace_file import replacing
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm, Member


@dataclass(frozen=True)
class Best:
    """Selected Student.

    Args:
        arm: Arm of the Student.
        seed: Seed of the Student.
        run: Run id.
        value: AUC on the worst validation set.
        thresholds: Thresholds by rule, fixed on its validation scores, including the rule of the
            study.
    """

    arm: Arm
    seed: int
    run: str
    value: float
    thresholds: dict[str, float]


def chosen_student(plan: Plan, files: ScoreFiles) -> Best | None:
    """Student with the best backbone on validation and its median seed.

    The median (the lower of two) is a typical result; the best seed would be biased.

    Args:
        plan: Plan of one domain.
        files: Score files of the study.
    """
    protocol, study = plan.protocol, plan.protocol.study
    classes, positive = protocol.workspace.manifest.classes, study.positive
    candidates: list[list[tuple[float, Member, pd.DataFrame]]] = []
    winner = plan.winner()
    for backbone in study.students:
        setting = plan.setting_of("student", backbone)
        found = []
        for member in plan.members_of("student", backbone):
            if member.arm.setting != setting or member.arm.teacher != str(winner):
                continue
            scores = files.validation(protocol, member)
            if scores is not None:
                value = worst_auc(scores, classes, positive, study.validation_negatives)
                found.append((value, member, scores))
        if found:
            candidates.append(sorted(found, key=lambda one: one[0]))
    if not candidates:
        return None
    students = max(candidates, key=lambda group: sum(one[0] for one in group) / len(group))
    value, member, scores = students[(len(students) - 1) // 2]
    thresholds = fixed_thresholds(scores, positive, (*RULES, study.threshold))
    return Best(member.arm, member.seed, member.run, value, thresholds)


def worst_auc(
    scores: pd.DataFrame, classes: list[str], positive: str | None, negatives: str | None = None
) -> float:
    """AUC on the worst validation set; `negatives` as in `validation_rows`."""
    return min(
        set_auc(validation_rows(scores, name, classes, negatives), classes, positive)
        for name in scores["split"].unique()
    )


def write_best(plan: Plan, best: Best, folder: Path, card: str) -> None:
    """Write the selected Student as a model folder with its card.

    Args:
        plan: Plan of one domain.
        best: Selected Student.
        folder: Model folder; an existing one is replaced atomically.
        card: Text of the README.
    """
    model = load_own_model(plan.protocol.run_folder(best.run) / "model")
    with replacing(folder) as partial:
        save_model(model, partial, best.thresholds)
        (partial / "README.md").write_text(card, encoding="utf-8")
