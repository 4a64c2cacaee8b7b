"""Ladder of a study, which decomposes the gain of a Student, and its curve over annotated images.

The rungs are the AUC without maps (Baseline 2), with the best of the maps that do not know where
the evidence lies in their image (any map), with the Teacher's maps (the Student), and with all
human maps (the ceiling). Each rung has its own setting, selected by one rule on the same validation
sets. Which control is the best of any map is selected by the same rule, on validation alone. The
gain of the Teacher's maps over any map is what the place is worth. A control that is best on
validation need not be best on the other sets: a ladder therefore has the gain over every control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from preceptor.metrics.paired_tests import (
    UNDEFINED,
    Excluded,
    PairedResult,
    excluded,
    mean_std,
    paired_difference,
    t_interval,
)
from preceptor.metrics.scores import ALL_SOURCES
from preceptor.results.comparisons import set_aucs, shown
from preceptor.results.record import Budget, Row, StudyRecord, records, select_arm
from preceptor.study.config import Control, Setting
from preceptor.study.selection import Candidate
from preceptor.study.steps import Arm, Role
from preceptor.training.record import metric_name

ANY_MAP: tuple[Control, ...] = ("shuffled", "centre", "pca", "shuffled_human")
"""Controls that guide by maps which do not know the place of the evidence in their image."""

RungName = Literal["none", "any", "teacher", "human"]
"""Maps of a rung: no maps, the best of any map, the Teacher's maps, all human maps."""

_KEYS = ("baseline2", *ANY_MAP, "student", "ceiling")  # rows of the main table


@dataclass(frozen=True)
class AnyMap:
    """Control that stands for any map, selected on validation."""

    control: Control
    among: tuple[Control, ...]
    reason: str  # reason of the selection, in one sentence


@dataclass(frozen=True)
class Gain:
    """Gain of a rung over the one below, paired by seed."""

    below: RungName
    paired: PairedResult  # paired difference, this rung minus the one below
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class ControlGain:
    """Gain of the Student over one of the controls of `ANY_MAP`, paired by seed."""

    control: Control
    paired: PairedResult  # paired difference, Student minus control
    images: tuple[float, float] = UNDEFINED  # interval over seeds and images, on the primary set


@dataclass(frozen=True)
class Rung:
    """Rung of a ladder."""

    name: RungName
    key: str
    title: str
    setting: Setting  # selected setting; α is 1 without maps
    n: int
    mean: float
    std: float  # standard deviation (n − 1)
    low: float  # 95 % t interval of the mean over seeds; NaN for one seed
    high: float
    gain: Gain | None = None  # gain over the rung below; None on the lowest rung
    agreement: float = math.nan


@dataclass(frozen=True)
class Ladder:
    """Ladder of a backbone on an evaluation set; rungs without results are absent."""

    backbone: str
    set: str
    rungs: tuple[Rung, ...]  # rungs from the lowest to the highest
    any_map: AnyMap | None  # control that stands for any map; None if no such control has finished
    over_controls: tuple[ControlGain, ...] = ()
    missing: bool = False  # whether a control of the study has no gain yet

    def rung(self, name: RungName) -> Rung | None:
        """Rung of a name; None if it is absent."""
        return next((rung for rung in self.rungs if rung.name == name), None)

    @property
    def place(self) -> PairedResult | None:
        """Gain of the Teacher's maps over any map; None without these two rungs."""
        teacher = self.rung("teacher")
        if teacher is None or teacher.gain is None or teacher.gain.below != "any":
            return None
        return teacher.gain.paired

    @property
    def place_images(self) -> tuple[float, float]:
        """Interval of `place` over seeds and images."""
        control = self.any_map.control if self.any_map else None
        return next((one.images for one in self.over_controls if one.control == control), UNDEFINED)

    @property
    def smallest(self) -> ControlGain | None:
        """Smallest of the gains over the controls on this set; None without such a gain."""
        measured = [gain for gain in self.over_controls if math.isfinite(gain.paired.mean)]
        return min(measured, key=lambda gain: gain.paired.mean, default=None)

    @property
    def above_all_controls(self) -> bool:
        """Whether the gains over all controls are shown.

        All of them have to be (an intersection–union test), so that none needs a correction for
        their number.
        """
        gains = [gain.paired for gain in self.over_controls]
        over_each = all(shown(gain.low, gain.high, gain.p) > 0 for gain in gains)
        return bool(gains) and not self.missing and over_each

    @property
    def only_here(self) -> bool:
        """Whether these gains are shown, and the interval of one over images contains 0."""
        ends = [gain.images for gain in self.over_controls]
        return self.above_all_controls and any(low <= 0 <= high for low, high in ends)


def ladders(
    record: StudyRecord, figures: pd.DataFrame, runs: pd.DataFrame, compared: pd.DataFrame
) -> list[Ladder]:
    """Ladders of every backbone and evaluation set with a Student; tables as in `Results`."""
    setup, found = record.setup, []
    rows = {row.key: row for row in setup.rows}
    for backbone in setup.students:
        arms = {key: row.arms[backbone] for key, row in rows.items() if backbone in row.arms}
        any_map = select_any_map(record, backbone)
        agreement = {
            key: float(map_agreement(select_arm(runs, arm), setup.validation_sets).mean())
            for key, arm in arms.items()
        }
        for name in setup.sets:
            aucs = {
                key: set_aucs(figures, arm, name).dropna().sort_index()
                for key, arm in arms.items()
                if key in _KEYS
            }
            rungs = _rungs(rows, aucs, backbone, any_map, agreement)
            if all(rung.name != "teacher" for rung in rungs):
                continue
            gains, images = [], dict[str, tuple[float, float]]()
            if name == setup.primary and not compared.empty:
                of = (compared["question"] == "control") & (compared["backbone"] == backbone)
                lines = compared.loc[of, ["key_b", "image_low", "image_high"]].to_numpy(object)
                images = {key: (float(low), float(high)) for key, low, high in lines}
            for key in any_map.among if any_map is not None else ():
                ours, theirs = aucs["student"].align(aucs[key], join="inner")
                if len(ours):
                    paired = paired_difference(ours, theirs)
                    gains.append(ControlGain(key, paired, images.get(key, UNDEFINED)))
            planned = {one.arm.role for one in record.members if one.arm.backbone == backbone}
            missing = bool(planned & set(ANY_MAP) - {gain.control for gain in gains})
            found.append(Ladder(backbone, name, rungs, any_map, tuple(gains), missing))
    return found


def select_any_map(record: StudyRecord, backbone: str) -> AnyMap | None:
    """Best control of `ANY_MAP` on validation, among those whose every seed has finished."""
    setup, candidates = record.setup, []
    rows = {row.key: row for row in setup.rows}
    for key in ANY_MAP:
        if key not in rows or backbone not in rows[key].arms:
            continue
        arm = rows[key].arms[backbone]
        members = {member.seed: member for member in record.members_of(arm)}
        of_seeds = [members[seed] for seed in setup.seeds if seed in members]
        scores = [table for member in of_seeds if (table := record.validation(member)) is not None]
        if len(scores) == len(setup.seeds):
            candidates.append(Candidate(key, arm.setting, scores))
    if not candidates:
        return None
    choice = record.choose(candidates)
    among = tuple(key for key in ANY_MAP if key in {one.name for one in candidates})
    (control,) = (key for key in among if key == choice.winner)
    return AnyMap(control, among, choice.reason)


def map_agreement(runs: pd.DataFrame, sets: Sequence[str]) -> pd.Series:
    """Mean correlation with human maps over validation sets at the selected epoch, by seed."""
    mine = runs.drop_duplicates("seed").set_index("seed")
    names = [metric_name(one, "map_correlation") for one in sets]
    return mine[[name for name in names if name in mine]].astype(float).mean(axis=1)


def ladder_table(all_ladders: Sequence[Ladder]) -> pd.DataFrame:
    """Ladders as a table with one row per rung; columns in `tables.LADDER`."""
    return pd.DataFrame([_line(ladder, rung) for ladder in all_ladders for rung in ladder.rungs])


def _rungs(
    rows: Mapping[str, Row],
    aucs: Mapping[str, pd.Series],
    backbone: str,
    any_map: AnyMap | None,
    agreement: Mapping[str, float],
) -> tuple[Rung, ...]:
    keys: dict[RungName, str] = {
        "none": "baseline2",
        "any": any_map.control if any_map is not None else "",
        "teacher": "student",
        "human": "ceiling",
    }
    keys = {name: key for name, key in keys.items() if key in aucs and len(aucs[key])}
    gains: dict[RungName, Gain] = {}
    for below, above in pairwise(keys):
        ours, theirs = aucs[keys[above]].align(aucs[keys[below]], join="inner")
        if len(ours):
            by_seed = tuple(round(float(value), 6) for value in ours - theirs)
            gains[above] = Gain(below, paired_difference(ours, theirs), by_seed)
    return tuple(
        Rung(
            name,
            key,
            rows[key].title,
            rows[key].arms[backbone].setting,
            len(aucs[key]),
            *mean_std(aucs[key]),
            *t_interval(aucs[key]),
            gains.get(name),
            agreement[key],
        )
        for name, key in keys.items()
    )


def _line(ladder: Ladder, rung: Rung) -> dict[str, Any]:
    names = ("key", "title", "n", "mean", "std", "low", "high")
    line: dict[str, Any] = {"backbone": ladder.backbone, "set": ladder.set, "rung": rung.name}
    line |= {name: getattr(rung, name) for name in names}
    line |= {"guidance": rung.setting.guidance, "alpha": rung.setting.alpha}
    paired = ("n", "mean", "std", "low", "high", "p", "p_floor")
    columns = ("gain_n", "gain", "gain_std", "gain_low", "gain_high", "p", "p_floor")
    if rung.gain is None:
        return line | {"below": "", "gain_by_seed": ()} | dict.fromkeys(columns, math.nan)
    values = (getattr(rung.gain.paired, name) for name in paired)
    gain = {"below": rung.gain.below, "gain_by_seed": rung.gain.by_seed}
    return line | gain | dict(zip(columns, values, strict=True))


# Annotation budgets

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


def _gain(here: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Gain from one point of a curve to a later one, over their common seeds."""
    common = sorted(set(here["seeds"]) & set(after["seeds"]))
    ours, theirs = (dict(zip(p["seeds"], p["by_seed"], strict=True)) for p in (after, here))
    paired = paired_difference([ours[s] for s in common], [theirs[s] for s in common])
    own = {name: getattr(paired, name) for name in ("n", "mean", "low", "high", "p")}
    return {"size": here["size"], "then": after["size"]} | own


def enough(
    curve: pd.DataFrame, backbone: str, sizes: Sequence[int], seeds: int = 0
) -> Enough | None:
    """Smallest number of annotated images for which no larger number gives a relevant gain;
    None before all sizes have so many seeds.
    """
    if curve.empty:
        return None
    mine = curve[(curve["backbone"] == backbone) & (curve["line"] == "student")]
    points = records(mine.sort_values("size"))
    if not {*sizes} <= {point["size"] for point in points}:
        return None
    gains = [[_gain(here, after) for after in points[at + 1 :]] for at, here in enumerate(points)]
    if len(points) < 2 or any(
        np.isnan(gain["mean"]) or gain["n"] < seeds for several in gains for gain in several
    ):
        return None
    size, furthest = None, gains[-2][0]
    for several in gains[:-1]:
        sides = [excluded(step["low"], step["high"]) for step in several]
        if min(gain["n"] for gain in several) > 2 and all(
            side in (Excluded.GAIN, Excluded.BOTH) for side in sides
        ):
            size, furthest = several[0]["size"], max(several, key=lambda gain: gain["high"])
            break
    return Enough(size, *(furthest[name] for name in ("size", "then", "mean", "low", "high", "p")))


def more_marks(
    all_ladders: Sequence[Ladder],
    curve: pd.DataFrame,
    students: Sequence[str],
    sizes: Sequence[int],
    marked: Sequence[int],
    seeds: int = 0,
) -> tuple[float, int, int, str] | None:
    """Largest gain of the last step of a budget, or of all human maps over the Teacher's, that is
    shown; with the numbers of images, of which `marked` has those annotated and with human maps,
    and the backbone.
    """
    gains = []
    for backbone in students if sizes else ():
        step = enough(curve, backbone, sizes, seeds)
        if step is not None and step.size is None and step.shown:
            gains.append((step.gain, step.start, step.then, backbone))
    alike = marked[0] == marked[1]
    for ladder in () if sizes or alike else all_ladders:
        rung = ladder.rung("human")
        if rung is not None and rung.gain is not None and rung.gain.below == "teacher":
            gain = rung.gain.paired
            if gain.n >= seeds and shown(gain.low, gain.high, gain.p) > 0:
                gains.append((gain.mean, marked[0], marked[1], ladder.backbone))
    return max(gains, default=None)
