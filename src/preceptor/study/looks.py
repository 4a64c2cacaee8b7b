"""Looks at the primary comparisons of a study, which decide whether further seeds are run.

A look uses the test scores of Students and baselines. It decides on the width of the intervals
only, not on the differences themselves, and no selection depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from preceptor.evaluation.scores import set_auc
from preceptor.evaluation.sequential import sequential_difference
from preceptor.runtime.result_folder import read_scores
from preceptor.study.baseline_runs import annotated_run, full_run
from preceptor.study.protocol import Protocol
from preceptor.study.seeds import SeedLooks
from preceptor.study.setting import Setting
from preceptor.study.steps import Role, Step
from preceptor.study.student_runs import student_run
from preceptor.study.teacher import Teacher

COMPARED: tuple[Role, ...] = ("student", "baseline1", "baseline2")
"""Roles of the primary comparisons."""

Pairs = dict[tuple[str, Role], tuple[list[Step], list[Step]]]
"""Runs of the Student and of a baseline, one per seed, by backbone and baseline."""


@dataclass(frozen=True)
class Interval:
    """Corrected interval of a primary comparison at a look.

    Args:
        backbone: Backbone of both sides.
        baseline: baseline1 (at its best α) or baseline2.
        low, high: Limits of the AUC difference Student − baseline.
    """

    backbone: str
    baseline: Role
    low: float
    high: float

    @property
    def width(self) -> float:
        """high − low."""
        return self.high - self.low


@dataclass(frozen=True)
class LookResult:
    """Outcome of a look.

    Args:
        seeds: Number of seeds.
        intervals: Intervals of all primary comparisons.
        width: Largest width at which a study stops.
        next: Number of seeds of the next look; None = the study stops.
    """

    seeds: int
    intervals: tuple[Interval, ...]
    width: float
    next: int | None

    @property
    def widest(self) -> Interval:
        """Widest interval; one without limits counts as the widest."""
        return max(self.intervals, key=lambda one: math.inf if _unknown(one) else one.width)

    @property
    def reason(self) -> str:
        """Decision and its reason, as a sentence."""
        widest = self.widest
        narrow = widest.width <= self.width
        found = "is undefined" if _unknown(widest) else f"is {widest.width:.4f} wide"
        bound = f"{'at most' if narrow else 'more than'} {self.width:g}"
        told = (
            f"the widest interval ({widest.backbone}, Student minus {_NAMES[widest.baseline]}) "
            f"{found}, {bound}"
        )
        if self.next is not None:
            return f"{told}; the study goes on to {self.next} seeds."
        return f"{told}; {'the study stops' if narrow else 'the limit of seeds is reached'}."


_NAMES: Mapping[Role, str] = {"baseline1": "Baseline 1", "baseline2": "Baseline 2"}


def look(
    aucs: Mapping[tuple[str, Role], tuple[Sequence[float], Sequence[float]]], settings: SeedLooks
) -> LookResult:
    """Decide whether further seeds are run.

    Args:
        aucs: AUCs on the primary set by backbone and baseline: those of the Student and those of
            the baseline, one per seed.
        settings: Width and looks of the study.
    """
    intervals = []
    for (backbone, baseline), (student, other) in aucs.items():
        found = sequential_difference(student, other, settings.looks)
        intervals.append(Interval(backbone, baseline, found.low, found.high))
    seeds = len(next(iter(aucs.values()))[0])
    later = next((number for number in settings.looks if number > seeds), None)
    narrow = all(one.width <= settings.width for one in intervals)  # false for NaN
    return LookResult(seeds, tuple(intervals), settings.width, None if narrow else later)


def primary_pairs(
    protocol: Protocol,
    winner: Teacher,
    settings: Mapping[tuple[Role, str], Setting],
    seeds: Sequence[int],
) -> Pairs:
    """Runs of all primary comparisons.

    Args:
        protocol: Builds the steps.
        winner: Selected Teacher.
        settings: Selected settings by role, one of `COMPARED`, and backbone.
        seeds: Seeds.
    """
    pairs: Pairs = {}
    for name in protocol.study.students:
        student, baseline1, baseline2 = (settings[role, name] for role in COMPARED)
        students = [student_run(protocol, winner, name, student, seed)[-1] for seed in seeds]
        one = [annotated_run(protocol, name, baseline1, seed) for seed in seeds]
        two = [full_run(protocol, "baseline2", name, baseline2, seed) for seed in seeds]
        pairs |= {(name, "baseline1"): (students, one), (name, "baseline2"): (students, two)}
    return pairs


def primary_aucs(
    protocol: Protocol, pairs: Pairs
) -> dict[tuple[str, Role], tuple[list[float], list[float]]]:
    """AUCs on the primary set of the runs of all primary comparisons, read from their scores."""
    found: dict[str, float] = {}
    classes, positive = protocol.workspace.manifest.classes, protocol.study.positive

    def auc(run: Step) -> float:
        if run.id not in found:  # a Student is compared with two baselines
            scores = read_scores(protocol.folder(protocol.evaluation(run)))
            own = scores[scores["split"] == protocol.primary]
            found[run.id] = set_auc(own, classes, positive)
        return found[run.id]

    return {
        key: ([auc(run) for run in students], [auc(run) for run in others])
        for key, (students, others) in pairs.items()
    }


def _unknown(interval: Interval) -> bool:
    return math.isnan(interval.width)
