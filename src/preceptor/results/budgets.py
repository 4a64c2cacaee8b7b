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
from preceptor.results.comparisons import shown
from preceptor.results.ladder import map_agreement
from preceptor.results.record import Budget, StudyRecord, records, select_arm
from preceptor.study.steps import Arm, Role

LINES = {
    "baseline1": "Baseline 1: annotated alone",
    "student": "Student: all images, Teacher's maps",
    "mapper": "Mapper as a detector: marks alone",
    "teacher_maps": "Teacher's maps (r with human maps)",
}


@dataclass(frozen=True)
class Enough:
    """Smallest number of annotated images beyond which no larger number gives the relevant gain.

    `gain` is from `start` (`size`, if there is one) to the number whose interval extends furthest.
    """

    size: int | None  # None if there is no such number
    start: int
    then: int
    gain: float
    low: float  # 95 % interval over seeds
    high: float
    p: float

    @property
    def shown(self) -> bool:
        """Whether the gain is shown to be above 0."""
        return shown(self.low, self.high, self.p) > 0


def budget_curve(record: StudyRecord, figures: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Results of Baseline 1, the Student, a mapper and the Teacher's maps by annotated images.

    A row per backbone, line (`LINES`) and size: AUC on the primary set, or the correlation of the
    Teacher's maps with human maps. The mapper and the Teacher are the same for every backbone.
    """
    setup, lines = record.setup, []
    for budget in setup.budgets:
        for backbone in setup.students:
            sides: dict[Role, str | None] = {
                "baseline1": backbone,
                "student": backbone,
                "mapper": setup.budget_mapper,
            }
            values: dict[str, pd.Series] = {
                role: _aucs(figures, budget, role, name, setup.primary)
                for role, name in sides.items()
            }
            if setup.budget_teacher is not None:
                arm = replace(setup.budget_teacher, annotated=budget.size)
                values["teacher_maps"] = map_agreement(select_arm(runs, arm), setup.validation_sets)
            for line, by_seed in values.items():
                by_seed = by_seed.dropna().sort_index()
                if len(by_seed):
                    at = {"backbone": backbone, "line": line, "size": budget.size}
                    lines.append(at | {"minutes": budget.minutes} | _summary(by_seed))
    return pd.DataFrame(lines)


def _aucs(
    figures: pd.DataFrame, budget: Budget, role: Role, backbone: str | None, primary: str
) -> pd.Series:
    """AUCs of a role on the primary set at a budget, by seed, at the selected setting if any."""
    for arm in budget.arms:
        if (arm.role, arm.backbone) == (role, backbone):
            figures = select_arm(figures, arm)
    here = figures[
        (figures["role"] == Arm(role, "", 1.0, annotated=budget.size).label)
        & (figures["backbone"] == backbone)
        & (figures["set"] == primary)
        & (figures["source"] == ALL_SOURCES)
    ]
    return here.drop_duplicates("seed").set_index("seed")["auc"]


def _summary(by_seed: pd.Series) -> dict[str, Any]:
    low, high = t_interval(by_seed)
    return mean_std(by_seed)._asdict() | {
        "low": low,
        "high": high,
        "n": len(by_seed),
        "by_seed": [float(value) for value in by_seed],
        "seeds": [int(seed) for seed in by_seed.index],
    }


def budget_steps(curve: pd.DataFrame) -> pd.DataFrame:
    """Gain of each step from one number of annotated images to the next."""
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
    own = {name: getattr(paired, name) for name in ("n", "mean", "low", "high", "p")}
    return {"size": here["size"], "then": after["size"]} | own


def enough(
    curve: pd.DataFrame, backbone: str, line: str, gain: float, sizes: Sequence[int]
) -> Enough | None:
    """Smallest number of annotated images for which no larger number gives a gain of `gain`."""
    if curve.empty:
        return None
    mine = curve[(curve["backbone"] == backbone) & (curve["line"] == line)]
    points = records(mine.sort_values("size"))
    if not {*sizes} <= {one["size"] for one in points}:
        return None
    gains = [[_gain(here, after) for after in points[at + 1 :]] for at, here in enumerate(points)]
    if len(points) < 2 or any(np.isnan(one["mean"]) for several in gains for one in several):
        return None
    size, furthest = None, gains[-2][0]
    for several in gains[:-1]:
        sides = [excluded(one["low"], one["high"], gain) for one in several]
        if all(side in (Excluded.GAIN, Excluded.BOTH) for side in sides):
            size, furthest = several[0]["size"], max(several, key=lambda one: one["high"])
            break
    return Enough(size, *(furthest[name] for name in ("size", "then", "mean", "low", "high", "p")))
