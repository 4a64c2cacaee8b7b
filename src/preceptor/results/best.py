"""`best/`: the chosen Student as a model folder, with its thresholds fixed on validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.evaluation.operating_points import RULES
from preceptor.evaluation.scores import fixed_thresholds, set_auc, validation_rows
from preceptor.models.build import load_model, save_model
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.result_folder import is_finished, read_scores
from preceptor.study.plan import Plan


@dataclass(frozen=True)
class Best:
    """The chosen Student.

    Args:
        backbone, alpha, seed: Which it is.
        run: Its run id.
        value: Its AUC on the worst validation set.
    """

    backbone: str
    alpha: float
    seed: int
    run: str
    value: float


def chosen_student(plan: Plan) -> Best | None:
    """The backbone whose Students are best on validation, and of these the median seed.

    The median (the lower of two) stands for what a user gets; the best seed would be luck.
    """
    protocol = plan.protocol
    classes, positive = protocol.workspace.manifest.classes, protocol.study.positive
    candidates: list[list[Best]] = []
    winner = plan.winner()
    for backbone in protocol.study.students:
        alpha = plan.alpha_of("student", backbone)
        found = []
        for member in plan.members_of("student", backbone):
            folder = protocol.run_folder(member.run)
            chosen = member.arm.alpha == alpha and member.arm.teacher == str(winner)
            if chosen and is_finished(folder):
                scores = read_scores(folder)
                negatives = protocol.study.validation_negatives
                value = worst_auc(scores, classes, positive, negatives)
                found.append(Best(backbone, member.arm.alpha, member.seed, member.run, value))
        if found:
            candidates.append(sorted(found, key=lambda best: best.value))
    if not candidates:
        return None
    students = max(candidates, key=lambda group: sum(one.value for one in group) / len(group))
    return students[(len(students) - 1) // 2]


def worst_auc(
    scores: pd.DataFrame, classes: list[str], positive: str | None, negatives: str | None = None
) -> float:
    """AUC on the validation set where it is lowest; `negatives` as of `validation_rows`."""
    return min(
        set_auc(validation_rows(scores, name, classes, negatives), classes, positive)
        for name in scores["split"].unique()
    )


def kept_thresholds(plan: Plan, best: Best) -> dict[str, float]:
    """By rule, all fixed on its validation scores: those of every run, and the study's own."""
    study = plan.protocol.study
    scores = read_scores(plan.protocol.run_folder(best.run))
    return fixed_thresholds(scores, study.positive, (*RULES, study.threshold))


def write_best(plan: Plan, best: Best, folder: Path, card: str) -> None:
    """Write the chosen Student as a model folder with its card.

    Args:
        plan: Of one domain.
        best: Its chosen Student.
        folder: The model folder; one that is there is replaced at once.
        card: Its README.
    """
    model = load_model(plan.protocol.run_folder(best.run) / "model")
    with replacing(folder) as partial:
        save_model(model, partial, kept_thresholds(plan, best))
        (partial / "README.md").write_text(card, encoding="utf-8")
