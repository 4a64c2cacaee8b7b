"""Ladder of a study: the gain of a Student, decomposed by what its maps know.

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
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from preceptor.metrics.paired_tests import (
    UNDEFINED,
    PairedResult,
    mean_std,
    paired_difference,
    t_interval,
)
from preceptor.results.comparisons import set_aucs
from preceptor.results.record import StudyRecord
from preceptor.results.rows import Row, select_arm
from preceptor.study.config import Control, Setting
from preceptor.study.selection import Candidate, choose
from preceptor.training.record import metric_name

ANY_MAP: tuple[Control, ...] = ("shuffled", "centre", "pca", "shuffled_human")
"""Controls that guide by maps which do not know the place of the evidence in their image."""

RungName = Literal["none", "any", "teacher", "human"]
"""Maps of a rung: no maps, the best of any map, the Teacher's maps, all human maps."""

_KEYS = ("baseline2", *ANY_MAP, "student", "ceiling")  # rows of the main table


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


@dataclass(frozen=True)
class Gain:
    """Gain of a rung over the one below, paired by seed.

    Args:
        below: Name of the rung below.
        paired: Paired difference, this rung minus the one below.
        by_seed: Difference of each seed.
    """

    below: RungName
    paired: PairedResult
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class ControlGain:
    """Gain of the Student over one of the controls of `ANY_MAP`, paired by seed.

    Args:
        control: Key of the control.
        paired: Paired difference, Student minus control.
    """

    control: Control
    paired: PairedResult


@dataclass(frozen=True)
class Rung:
    """Rung of a ladder.

    Args:
        name: Name of the rung.
        key, title: Row of the main table.
        setting: Selected setting; α is 1 without maps.
        n: Number of seeds.
        mean, std: Mean AUC over seeds and standard deviation (n − 1).
        low, high: 95 % t interval of the mean over seeds; NaN for one seed.
        gain: Gain over the rung below; None on the lowest rung.
        agreement: Mean correlation of the models' maps with human maps of validation images, over
            validation sets and seeds; NaN without human maps.
    """

    name: RungName
    key: str
    title: str
    setting: Setting
    n: int
    mean: float
    std: float
    low: float
    high: float
    gain: Gain | None = None
    agreement: float = math.nan


@dataclass(frozen=True)
class Ladder:
    """Ladder of a backbone on an evaluation set; rungs without results are absent.

    Args:
        backbone: Backbone of all models.
        set: Evaluation set.
        rungs: Rungs from the lowest to the highest.
        any_map: Control that stands for any map; None if no such control has finished.
        over_controls: Gains of the Student over every control that any map was selected from.
        place_images: Interval of the gain over any map over seeds and images, see `compare`; NaN on
            other sets than the primary one.
    """

    backbone: str
    set: str
    rungs: tuple[Rung, ...]
    any_map: AnyMap | None
    over_controls: tuple[ControlGain, ...] = ()
    place_images: tuple[float, float] = UNDEFINED

    def rung(self, name: RungName) -> Rung | None:
        """Rung of a name; None if it is absent."""
        return next((one for one in self.rungs if one.name == name), None)

    @property
    def place(self) -> PairedResult | None:
        """Gain of the Teacher's maps over any map; None without these two rungs."""
        teacher = self.rung("teacher")
        if teacher is None or teacher.gain is None or teacher.gain.below != "any":
            return None
        return teacher.gain.paired

    @property
    def smallest(self) -> ControlGain | None:
        """Smallest of the gains over the controls on this set; None without such a gain."""
        known = [one for one in self.over_controls if math.isfinite(one.paired.mean)]
        return min(known, key=lambda one: one.paired.mean, default=None)

    @property
    def above_all_controls(self) -> bool:
        """Whether the 95 % intervals of the gains over all controls are above 0.

        All of them have to be (an intersection–union test), so that none needs a correction for
        their number.
        """
        return bool(self.over_controls) and all(one.paired.low > 0 for one in self.over_controls)


def ladders(
    record: StudyRecord, figures: pd.DataFrame, runs: pd.DataFrame, compared: pd.DataFrame
) -> list[Ladder]:
    """Ladders of every backbone and evaluation set with a Student.

    Args:
        record: Record of one domain.
        figures: Metrics, see `Results.figures`.
        runs: Trainings, see `Results.runs`.
        compared: Comparisons on the primary set, see `Results.comparisons`.
    """
    setup, found = record.setup, []
    rows = {row.key: row for row in setup.rows}
    for backbone in setup.students:
        chosen = select_any_map(record, backbone)
        agreement = {
            key: float(
                map_agreement(select_arm(runs, row.arms[backbone]), setup.validation_sets).mean()
            )
            for key, row in rows.items()
            if backbone in row.arms
        }
        for name in setup.sets:
            aucs = {
                key: set_aucs(figures, row.arms[backbone], name).dropna().sort_index()
                for key, row in rows.items()
                if key in _KEYS and backbone in row.arms
            }
            images = UNDEFINED
            if name == setup.primary and chosen is not None:
                images = _over_images(compared, backbone, chosen.control)
            ladder = Ladder(
                backbone,
                name,
                _rungs(rows, aucs, backbone, chosen, agreement),
                chosen,
                _over_controls(aucs, chosen),
                images,
            )
            if ladder.rung("teacher") is not None:
                found.append(ladder)
    return found


def select_any_map(record: StudyRecord, backbone: str) -> AnyMap | None:
    """Best control of `ANY_MAP` on validation, among those whose every seed has finished.

    Args:
        record: Record of one domain.
        backbone: Backbone of the controls.

    Returns:
        The control, or None if no control has finished.
    """
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
            found = [value for member in of_seeds for value in record.map_correlations(member)]
            agreement = float(np.mean(found)) if found else math.nan
            candidates.append(Candidate(key, arm.setting, scores, agreement))
    if not candidates:
        return None
    choice = choose(
        candidates,
        classes=setup.classes,
        positive=setup.positive,
        rule=setup.selection,
        draws=setup.draws,
        negatives=setup.negatives,
    )
    among = tuple(key for key in ANY_MAP if key in {one.name for one in candidates})
    (control,) = (key for key in among if key == choice.winner)
    return AnyMap(control, among, choice.reason)


def map_agreement(runs: pd.DataFrame, sets: Sequence[str]) -> pd.Series:
    """Mean correlation with human maps over validation sets at the selected epoch, by seed.

    Args:
        runs: Finished and unfinished runs of one arm, rows of `Results.runs`.
        sets: Validation sets; those without human maps are left out.

    Returns:
        float64 by seed; NaN for a run that has not finished, or without human maps.
    """
    mine = runs.drop_duplicates("seed").set_index("seed")
    names = [metric_name(one, "map_correlation") for one in sets]
    return mine[[name for name in names if name in mine]].astype(float).mean(axis=1)


def ladder_table(found: Sequence[Ladder]) -> pd.DataFrame:
    """Ladders as a table with one row per rung; columns in `schema.LADDER`."""
    return pd.DataFrame([_line(ladder, rung) for ladder in found for rung in ladder.rungs])


def _over_images(compared: pd.DataFrame, backbone: str, control: Control) -> tuple[float, float]:
    """Interval of the Student minus a control over seeds and images; NaN if it is not known."""
    if compared.empty:
        return UNDEFINED
    own = compared[(compared["key_a"] == "student") & (compared["key_b"] == control)]
    own = own[own["backbone"] == backbone]
    if own.empty:
        return UNDEFINED
    return float(own["image_low"].iloc[0]), float(own["image_high"].iloc[0])


def _over_controls(aucs: Mapping[str, pd.Series], chosen: AnyMap | None) -> tuple[ControlGain, ...]:
    """Gains of the Student over the controls that any map was selected from."""
    if chosen is None or "student" not in aucs:
        return ()
    pairs = ((key, _common(aucs["student"], aucs[key])) for key in chosen.among)
    return tuple(
        ControlGain(key, paired_difference(ours, theirs))
        for key, (ours, theirs) in pairs
        if len(ours)
    )


def _rungs(
    rows: Mapping[str, Row],
    known: Mapping[str, pd.Series],
    backbone: str,
    chosen: AnyMap | None,
    agreement: Mapping[str, float],
) -> tuple[Rung, ...]:
    keys: dict[RungName, str | None] = {
        "none": "baseline2",
        "any": None if chosen is None else chosen.control,
        "teacher": "student",
        "human": "ceiling",
    }
    aucs: dict[RungName, pd.Series] = {}
    of: dict[RungName, Row] = {}
    for name, key in keys.items():
        if key is not None and key in known and len(known[key]):
            aucs[name], of[name] = known[key], rows[key]
    gains = {above: _gain(aucs, below, above) for below, above in pairwise(aucs)}
    found = []
    for name, values in aucs.items():
        row, spread = of[name], mean_std(values)
        interval = t_interval(values)
        own = row.arms[backbone].setting
        found.append(
            Rung(
                name,
                row.key,
                row.title,
                own,
                len(values),
                *spread,
                *interval,
                gains.get(name),
                agreement[row.key],
            )
        )
    return tuple(found)


def _gain(aucs: Mapping[RungName, pd.Series], below: RungName, above: RungName) -> Gain | None:
    """Gain between two rungs over the seeds that both have; None without such a seed."""
    ours, theirs = _common(aucs[above], aucs[below])
    if not len(ours):
        return None
    by_seed = tuple(round(float(value), 6) for value in ours - theirs)
    return Gain(below, paired_difference(ours, theirs), by_seed)


def _common(ours: pd.Series, theirs: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Values of the seeds that both have, in the same order."""
    seeds = [seed for seed in ours.index if seed in theirs.index]
    return ours.loc[seeds], theirs.loc[seeds]


def _line(ladder: Ladder, rung: Rung) -> dict[str, Any]:
    line: dict[str, Any] = {
        "backbone": ladder.backbone,
        "set": ladder.set,
        "rung": rung.name,
        "key": rung.key,
        "title": rung.title,
        "guidance": rung.setting.guidance,
        "alpha": rung.setting.alpha,
        "n": rung.n,
        "mean": rung.mean,
        "std": rung.std,
        "low": rung.low,
        "high": rung.high,
        "below": "",
        "gain_by_seed": (),
    }
    if rung.gain is None:
        unknown = ("gain_n", "gain", "gain_std", "gain_low", "gain_high", "p", "p_floor")
        return line | dict.fromkeys(unknown, float("nan"))
    paired = rung.gain.paired
    return line | {
        "below": rung.gain.below,
        "gain_n": paired.n,
        "gain": paired.mean,
        "gain_std": paired.std,
        "gain_low": paired.low,
        "gain_high": paired.high,
        "p": paired.p,
        "p_floor": paired.p_floor,
        "gain_by_seed": rung.gain.by_seed,
    }
