"""Selected Student of a study, written to `best/` as a model folder with thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.errors import InputError, PreceptorError
from preceptor.metrics.operating_points import RULES
from preceptor.metrics.scores import fixed_thresholds, set_auc, validation_rows
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import (
    WEIGHTS,
    check_model_files,
    load_model,
    save_model,
)
from preceptor.results.record import StudyRecord
from preceptor.study.steps import Arm, Member
from preceptor.utils.files import copy_folder, remove_folder, replacing
from preceptor.utils.results import checksum


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


def chosen_student(record: StudyRecord) -> Best | None:
    """Student with the best backbone on validation and its median seed.

    The median (the lower of two) is a typical result; the best seed would be biased.

    Args:
        record: Record of one domain.
    """
    setup = record.setup
    candidates: list[list[tuple[float, Member, pd.DataFrame]]] = []
    arms = [arm for row in setup.rows if row.key == "student" for arm in row.arms.values()]
    for arm in arms:
        found = []
        for member in record.members_of(arm):
            scores = record.validation(member)
            if scores is not None:
                value = worst_auc(scores, setup.classes, setup.positive, setup.negatives)
                found.append((value, member, scores))
        if found:
            candidates.append(sorted(found, key=lambda one: one[0]))
    if not candidates:
        return None
    students = max(candidates, key=lambda group: sum(one[0] for one in group) / len(group))
    value, member, scores = students[(len(students) - 1) // 2]
    thresholds = fixed_thresholds(scores, setup.positive, (*RULES, setup.threshold))
    return Best(member.arm, member.seed, member.run, value, thresholds)


def worst_auc(
    scores: pd.DataFrame, classes: Sequence[str], positive: str | None, negatives: str | None = None
) -> float:
    """AUC on the worst validation set; `negatives` as in `validation_rows`."""
    return min(
        set_auc(validation_rows(scores, name, classes, negatives), classes, positive)
        for name in scores["split"].unique()
    )


@dataclass(frozen=True)
class BestModel:
    """Selected Student of a domain as it is written.

    Args:
        run: Run folder.
        thresholds: Thresholds by rule.
        card: Text of the README.
    """

    run: Path
    thresholds: dict[str, float]
    card: str


def write_best(chosen: Mapping[str, BestModel], folder: Path) -> None:
    """Write the selected Students as model folders with their cards.

    The folder is replaced as a whole: a model of an earlier config must not stay beside the results
    of another one. If the weights of a Student were removed from its run folder, the model that the
    folder has is kept if it has the weights of that run. Without any model the folder is removed.

    Args:
        chosen: Student by its folder in `folder`; "" = `folder` itself.
        folder: Folder of the models.
    """
    models: dict[str, GuidedModel | Path] = {}
    for name, one in chosen.items():
        try:
            models[name] = load_model(one.run / "model")
        except PreceptorError:
            if _has_weights_of(folder / name, one.run):
                models[name] = folder / name
    if not models:
        remove_folder(folder)
        return
    with replacing(folder) as partial:
        partial.mkdir()
        for name, model in models.items():
            if isinstance(model, Path):
                copy_folder(model, partial / name)
            else:
                save_model(model, partial / name, chosen[name].thresholds)
            (partial / name / "README.md").write_text(chosen[name].card, encoding="utf-8")


def _has_weights_of(folder: Path, run: Path) -> bool:
    """Whether a model folder has the weights that a run was finished with."""
    try:
        wanted = checksum(run, f"model/{WEIGHTS}")
        return bool(wanted) and check_model_files(folder)[WEIGHTS] == wanted
    except InputError:
        return False
