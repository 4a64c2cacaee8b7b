"""Annotation budgets: results by number of annotated images, and how many are enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from preceptor.metrics.paired_tests import (
    Excluded,
    excluded,
    mean_std,
    paired_difference,
    t_interval,
)
from preceptor.metrics.scores import ALL_SOURCES
from preceptor.results.ladder import map_agreement
from preceptor.results.record import Budget, StudyRecord
from preceptor.results.rows import records, select_arm
from preceptor.study.steps import Arm, Role

LINES = {
    "baseline1": "Baseline 1: annotated alone",
    "student": "Student: all images, Teacher's maps",
    "mapper": "Mapper as a detector: marks alone",
    "teacher_maps": "Teacher's maps (r with human maps)",
}


@dataclass(frozen=True)
class Enough:
    """Number of annotated images for which more of them are known to give less than the relevant
    gain.

    Args:
        size: Number of annotated images; None if there is no such number.
        start, then: Numbers of annotated images that are compared: `size` with the larger one whose
            interval extends furthest; or the last two if `size` is None.
        gain: Gain from `start` to `then`.
        low, high: 95 % interval of the gain over seeds.
    """

    size: int | None
    start: int
    then: int
    gain: float
    low: float
    high: float


def budget_curve(record: StudyRecord, figures: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Results of Baseline 1, the Student, a mapper and the Teacher's maps by number of annotated
    images.

    Args:
        record: Record of the study.
        figures, runs: Metrics and runs, see `Results`.

    Returns:
        One row per backbone, line (`LINES`) and size: backbone, line, size, minutes (annotation
        time, mean over seeds; NaN if a time is unknown), mean, std, low, high (95 % t interval of
        the mean over seeds), n, by_seed, seeds. The lines baseline1, student and mapper are AUCs on
        the primary set; teacher_maps is the correlation of the Teacher's maps with human maps of
        validation images. The mapper and the Teacher are the same for every backbone.
    """
    setup, lines = record.setup, list[dict[str, Any]]()
    for budget in setup.budgets:
        size = budget.size
        for backbone in setup.students:
            sides: list[tuple[Role, str | None]] = [
                ("baseline1", backbone),
                ("student", backbone),
                ("mapper", setup.budget_mapper),
            ]
            found: dict[str, pd.Series] = {
                role: _aucs(_selected(figures, budget, role, name), role, size, name, setup.primary)
                for role, name in sides
            }
            if setup.budget_teacher is not None:
                arm = replace(setup.budget_teacher, annotated=size)
                found["teacher_maps"] = map_agreement(select_arm(runs, arm), setup.validation_sets)
            for line, values in found.items():
                values = values.dropna().sort_index()
                if len(values):
                    at: dict[str, Any] = {"backbone": backbone, "line": line}
                    at |= {"size": size, "minutes": budget.minutes}
                    lines.append(at | _summary(values))
    return pd.DataFrame(lines)


def budget_steps(curve: pd.DataFrame) -> pd.DataFrame:
    """Gain of each step from one number of annotated images to the next.

    Returns:
        One row per backbone, line and step: backbone, line, size, then, n, mean, low, high (paired
        by seed, 95 % t interval).
    """
    lines = []
    if curve.empty:
        return curve
    for (backbone, line), part in curve.groupby(["backbone", "line"], sort=False):
        for here, after in pairwise(records(part.sort_values("size"))):
            lines.append({"backbone": backbone, "line": line} | _gain(here, after))
    return pd.DataFrame(lines)


def _gain(here: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Gain from one point of a curve to a later one, over their common seeds."""
    common = sorted(set(here["seeds"]) & set(after["seeds"]))
    ours, theirs = (dict(zip(p["seeds"], p["by_seed"], strict=True)) for p in (after, here))
    paired = paired_difference([ours[s] for s in common], [theirs[s] for s in common])
    return {
        "size": here["size"],
        "then": after["size"],
        "n": paired.n,
        "mean": paired.mean,
        "low": paired.low,
        "high": paired.high,
    }


def enough(
    curve: pd.DataFrame, backbone: str, line: str, gain: float, sizes: Sequence[int]
) -> Enough | None:
    """Smallest number of annotated images for which no larger number gives a gain of `gain`.

    Each number is compared with every larger one, paired by seed; the gains of several steps may
    add up to a relevant one. A gain is excluded if its 95 % interval lies below `gain`, see
    `excluded`.

    Args:
        curve: Results by number of annotated images, from `budget_curve`.
        backbone, line: Curve.
        gain: Smallest relevant gain.
        sizes: Numbers of annotated images of the budget.

    Returns:
        The number with the gain whose interval extends furthest; None if the curve lacks one of the
        numbers, or without two numbers that have common seeds.
    """
    if curve.empty:
        return None
    mine = curve[(curve["backbone"] == backbone) & (curve["line"] == line)]
    points = records(mine.sort_values("size"))
    if not {*sizes} <= {one["size"] for one in points}:
        return None
    gains = [[_gain(here, after) for after in points[at + 1 :]] for at, here in enumerate(points)]
    if len(points) < 2 or any(np.isnan(one["mean"]) for several in gains for one in several):
        return None
    for several in gains[:-1]:
        found = [excluded(one["low"], one["high"], gain) for one in several]
        if all(one in (Excluded.GAIN, Excluded.BOTH) for one in found):
            return _enough(several[0]["size"], max(several, key=lambda one: one["high"]))
    return _enough(None, gains[-2][0])


def _enough(size: int | None, shown: dict[str, Any]) -> Enough:
    return Enough(size, *(shown[name] for name in ("size", "then", "mean", "low", "high")))


def _selected(
    figures: pd.DataFrame, budget: Budget, role: Role, backbone: str | None
) -> pd.DataFrame:
    """Metrics of a role at the setting that was selected for a number of annotated images."""
    for arm in budget.arms:
        if (arm.role, arm.backbone) == (role, backbone):
            return select_arm(figures, arm)
    return figures


def _aucs(
    figures: pd.DataFrame, role: Role, size: int, backbone: str | None, primary: str
) -> pd.Series:
    """AUCs of a role on the primary set with a number of annotated images, by seed."""
    here = figures[
        (figures["role"] == _label(role, size))
        & (figures["backbone"] == backbone)
        & (figures["set"] == primary)
        & (figures["source"] == ALL_SOURCES)
    ]
    return here.drop_duplicates("seed").set_index("seed")["auc"]


def _label(role: Role, size: int) -> str:
    """Label of the runs of a role with a number of annotated images."""
    return Arm(role, "", 1.0, annotated=size).label


def _summary(values: pd.Series) -> dict[str, Any]:
    own = values.to_numpy(float)
    mean, std = mean_std(own)
    low, high = t_interval(own)
    return {
        "mean": mean,
        "std": std,
        "low": low,
        "high": high,
        "n": len(own),
        "by_seed": [float(value) for value in own],
        "seeds": [int(seed) for seed in values.index],
    }
