"""Paired comparisons of Students with baselines, controls and ceiling, and with published results.

Published: "Teaching AI to Teach: Leveraging Limited Human Salience Data Into Unlimited
Saliency-Based Training", Crum, Boyd, Bowyer, Czajka, BMVC 2023, Table 2: AUC on faces of unseen
generators, mean ±
standard deviation. Teacher: Xception and CAM; Students at α 0.01; Baseline 1 at α 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from preceptor.metrics.bootstrap import (
    ShareResult,
    Side,
    bootstrap_difference,
    share_of_draws,
    share_of_the_way,
)
from preceptor.metrics.paired_tests import (
    holm,
    mean_std,
    paired_difference,
    seeds_needed,
    t_interval,
)
from preceptor.metrics.scores import ALL_SOURCES, stack
from preceptor.results.record import (
    CONTROLS,
    DETECTORS,
    OVERALL,
    Row,
    StudyRecord,
    records,
    select_arm,
    whole_set,
)
from preceptor.study.config import Publication
from preceptor.study.steps import Arm

LEVEL = 0.05
"""Significance level of p-values."""
BY_TEACHER = ("RQ1", "saliency")
"""Questions that compare probe Students by their Teachers."""
FALL = 0.15  # difference in AUC from which on sets are called apart


def shown(low: float, high: float, p: float) -> int:
    """Whether an effect is shown: 1 above 0, −1 below 0, 0 not shown.

    An effect is shown if its 95 % interval does not contain 0 and its exact p, or the p with Holm's
    correction of a tested family, is at most `LEVEL`.

    Example:
        >>> shown(0.01, 0.05, 0.03), shown(-0.05, -0.01, 0.03), shown(0.01, 0.05, 0.25)
        (1, -1, 0)
    """
    if not p <= LEVEL:
        return 0
    return int(low > 0) - int(high < 0)


class Pair(NamedTuple):
    """Two arms to compare, a − b, with the keys (of rows of the main table) and titles of both."""

    question: str
    backbone: str
    a: Arm
    b: Arm
    key_a: str
    key_b: str
    title_a: str
    title_b: str


def _pairs(record: StudyRecord) -> Iterator[Pair]:
    rows = {row.key: row for row in record.setup.rows}
    asked = [
        ("RQ2", "student", "baseline1"),
        ("RQ2", "student", "baseline2"),
        ("RQ3", "student", "baseline1_paper"),
        *(("control", "student", key) for key in CONTROLS),
        ("ceiling", "student", "ceiling"),
        *(("detector", "student", key) for key in DETECTORS),
        ("start", "student_started", "baseline1_started"),
        ("start", "student_started", "baseline2_started"),
    ]
    for question, key_a, key_b in asked:
        if key_a in rows and key_b in rows:
            ours, theirs = rows[key_a], rows[key_b]
            title = "Student" if key_a == "student" else ours.title
            for name, arm in ours.arms.items():
                if name in theirs.arms:
                    b = theirs.arms[name]
                    yield Pair(question, name, arm, b, key_a, key_b, title, theirs.title)
    for pair in record.setup.pairs:
        titles = [f"Students of {arm.teacher}" for arm in (pair.a, pair.b)]
        yield Pair(pair.question, pair.a.backbone, pair.a, pair.b, "", "", *titles)


def compare(record: StudyRecord, figures: pd.DataFrame) -> pd.DataFrame:
    """Paired comparisons on the primary set, with the columns of `tables.COMPARISONS`.

    `image_low` and `image_high` are ends of a two-level bootstrap interval. If every seed has its
    own images, the variation over seeds includes the variation over images, and both intervals are
    the same. Rows with the backbone `OVERALL` are means over backbones by seed.
    """
    setup, lines = record.setup, []
    tests_of = cache(record.tests_of)  # the Student is in most pairs
    aucs_of = cache(lambda arm: set_aucs(figures, arm, setup.primary))

    @cache
    def stacked(arm: Arm, seeds: tuple[int, ...]) -> Any:
        frames = [tests_of(arm)[seed] for seed in seeds]
        return stack(frames, setup.primary, setup.classes, setup.positive)

    for pair in _pairs(record):
        a, b = pair.a, pair.b
        seeds = tuple(sorted(set(tests_of(a)) & set(tests_of(b))))
        if not seeds:
            continue
        aucs = [aucs_of(arm).loc[[*seeds]] for arm in (a, b)]
        images = None
        if not setup.draws:
            labels, left, groups = stacked(a, seeds)
            _, right, _ = stacked(b, seeds)
            sampled = bootstrap_difference(
                Side(labels, [left], groups), Side(labels, [right], groups)
            )
            images = sampled.low, sampled.high
        names = dict(zip(("question", "backbone", "a", "b"), (*pair[:2], *pair[6:]), strict=True))
        sides = {"key_a": pair.key_a, "key_b": pair.key_b, "alpha_a": a.alpha, "alpha_b": b.alpha}
        teachers = {"teacher_a": a.teacher, "teacher_b": b.teacher}
        line = _paired_line(aucs[0], aucs[1], images)
        lines.append(names | sides | teachers | line)
    lines += _over_backbones(record, figures)
    lines += _ways(record, figures)
    return correct([pd.DataFrame(lines)], 2 * len(setup.students))[0]


def correct(tables: Sequence[pd.DataFrame], size: int) -> list[pd.DataFrame]:
    """Holm's correction of the comparisons of a study, given as one table per domain.

    `size` is the number of comparisons of the whole family, also those that are not there yet.
    """
    fresh = [table.copy() for table in tables]
    asked = [
        table.index[table["question"] == "RQ2"] if len(table) else table.index for table in fresh
    ]
    parts = [table.loc[at, "p"] if len(at) else [] for table, at in zip(fresh, asked, strict=True)]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    raw = np.concatenate([np.asarray(part, float) for part in parts])
    adjusted = np.split(holm(raw, size), ends)
    for table, at, values in zip(fresh, asked, adjusted, strict=True):
        if len(at):
            table.loc[at, "p_holm"] = values
    return fresh


def _over_backbones(record: StudyRecord, figures: pd.DataFrame) -> list[dict[str, Any]]:
    """Comparisons of the Student with baselines and ceiling, as means over backbones by seed."""
    setup, lines = record.setup, []
    rows = {row.key: row for row in setup.rows}
    for key in ("baseline1", "baseline1_paper", "baseline2", "ceiling"):
        if len(setup.students) < 2 or key not in rows or "student" not in rows:
            continue
        sides = []
        for row in (rows["student"], rows[key]):
            if {*setup.students} <= row.arms.keys():
                arms = [row.arms[name] for name in setup.students]
                aucs = [set_aucs(figures, arm, setup.primary) for arm in arms]
                sides.append(pd.concat(aucs, axis=1).dropna())
        if len(sides) < 2:
            continue
        seeds = sorted(set(sides[0].index) & set(sides[1].index))
        if not seeds:
            continue
        both = [side.loc[seeds].mean(axis=1) for side in sides]
        names = {"question": "overall", "backbone": OVERALL, "a": "Student", "b": rows[key].title}
        at = {"key_a": "student", "key_b": key, "alpha_a": np.nan, "alpha_b": np.nan}
        line = _paired_line(both[0], both[1], None if setup.draws else (np.nan, np.nan))
        lines.append(names | at | {"teacher_a": "", "teacher_b": ""} | line)
    return lines


# What each way of guiding is compared with: its own shuffled maps first, which have p_holm.
_TWINS = {"student": "shuffled", "ceiling": "shuffled_human"}


def _ways(record: StudyRecord, figures: pd.DataFrame) -> list[dict[str, Any]]:
    """Each way minus its controls and Baseline 2, with Holm's correction over the ways."""
    setup, lines = record.setup, list[dict[str, Any]]()
    arms = {(str(arm.role), arm.backbone, arm.guidance): arm for arm in setup.ways}
    plain = {row.key: row.arms for row in setup.rows}.get("baseline2", {})
    guided = [arm for arm in setup.ways if arm.role in _TWINS]
    for (role, backbone), own in groupby(guided, lambda arm: (arm.role, arm.backbone)):
        ways = [*own]
        for key in (_TWINS[role], "centre", "baseline2"):
            family = []
            for arm in ways:
                of = (key, backbone, arm.guidance)
                other = plain.get(backbone) if key == "baseline2" else arms.get(of)
                if other is None:
                    continue
                both = [set_aucs(figures, side, setup.primary) for side in (arm, other)]
                seeds = sorted(set(both[0].index) & set(both[1].index))
                if seeds:
                    names = {"question": "guidance", "backbone": backbone}
                    sides = {"a": arm.guidance, "b": arm.guidance, "key_a": role, "key_b": key}
                    alphas = {"alpha_a": arm.alpha, "alpha_b": other.alpha}
                    teachers = {"teacher_a": arm.teacher, "teacher_b": other.teacher}
                    over_images = None if setup.draws else (np.nan, np.nan)
                    line = _paired_line(both[0].loc[seeds], both[1].loc[seeds], over_images)
                    family.append(names | sides | alphas | teachers | line)
            if key == _TWINS[role]:
                planned = sum((key, backbone, arm.guidance) in arms for arm in ways)
                adjusted = holm([line["p"] for line in family], planned)
                for line, value in zip(family, adjusted, strict=True):
                    line["p_holm"] = float(value)
            lines += family
    return lines


def _paired_line(
    ours: pd.Series, theirs: pd.Series, over_images: tuple[float, float] | None
) -> dict[str, Any]:
    """Columns of a paired difference; without an interval over images, it is that over seeds."""
    by_seed = ours.to_numpy(float) - theirs.to_numpy(float)
    paired, seeds = paired_difference(ours, theirs), seeds_needed(by_seed)
    image_low, image_high = over_images or (paired.low, paired.high)
    return asdict(paired) | {
        "p_holm": np.nan,
        "image_low": image_low,
        "image_high": image_high,
        "seeds_needed": seeds.expected if seeds else np.nan,
        "seeds_cautious": seeds.cautious if seeds else np.nan,
        "difference_by_seed": [round(float(value), 6) for value in by_seed],
    }


def set_aucs(figures: pd.DataFrame, arm: Arm, name: str) -> pd.Series:
    """AUC of an arm on a whole evaluation set, by seed."""
    part = select_arm(figures, arm)
    return whole_set(part, name).set_index("seed")["auc"]


class Fall(NamedTuple):
    """Fall of the network without maps between evaluation sets, or sources of the primary set."""

    backbone: str
    high: str  # name and AUC
    high_auc: float
    low: str
    low_auc: float
    student: float  # AUC of the Student on `low`
    sources: bool


def largest_fall(record: StudyRecord, table: pd.DataFrame) -> Fall | None:
    """Largest fall of Baseline 2 between whole sets, or else between sources of the primary set.

    It is at least `FALL`, and the 95 % interval over images, for these networks, lies above 0.
    """
    rows = table[table["mean"].notna() & (table["backbone"] != OVERALL)]
    whole, primary = rows["source"] == ALL_SOURCES, rows["set"] == record.setup.primary
    for column, part in (("set", rows[whole]), ("source", rows[~whole & primary])):
        falls = []
        for backbone, own in part.sort_values("mean").groupby("backbone", observed=True):
            ends = records(own[own["key"] == "baseline2"]) or [{"mean": 0.0}]
            high, low = ends[-1], ends[0]
            if high["mean"] - low["mean"] >= FALL and _apart(record, str(backbone), high, low):
                theirs = own[(own["key"] == "student") & (own[column] == low[column])]["mean"]
                first, last = (high[column], high["mean"]), (low[column], low["mean"])
                sources = column == "source"
                falls.append(Fall(str(backbone), *first, *last, float(theirs.mean()), sources))
        if falls:
            return max(falls, key=lambda fall: fall.high_auc - fall.low_auc)
    return None


def _apart(record: StudyRecord, backbone: str, *places: Mapping[str, Any]) -> bool:
    """Whether the AUC of Baseline 2 is shown to be higher at the first of two places."""
    setup, sides = record.setup, list[Side]()
    (arm,) = (row.arms[backbone] for row in setup.rows if row.key == "baseline2")
    every = [scores for member in record.members_of(arm) for scores in record.scores(member)]
    for images in places:
        tables = [one for one in every if one is not None and images["set"] in {*one["split"]}]
        tables = tables[:1] if setup.draws else tables  # of other images
        if images["source"]:  # of positives alone with the negatives of the set, as in `figures`
            own = (tables[0]["split"] == images["set"]) & (tables[0]["source"] == images["source"])
            if (tables[0]["label"][own] == setup.positive).all():
                own |= tables[0]["label"] != setup.positive
            tables = [table[own] for table in tables]
        scored = images["set"], setup.classes, setup.positive, setup.negatives
        labels, scores, groups = stack(tables, *scored)
        sides.append(Side(labels, [score[None] for score in scores], groups))
    return bootstrap_difference(*sides, same_images=False, resamples=1000).low > 0


def shares(record: StudyRecord, figures: pd.DataFrame) -> pd.DataFrame:
    """Share of the way of the Student from the better baseline to the ceiling, by backbone."""
    setup, lines = record.setup, []
    rows = {row.key: row for row in setup.rows}
    for backbone in rows["student"].arms if "student" in rows else {}:
        arms = {key: row.arms[backbone] for key, row in rows.items() if backbone in row.arms}
        means = {
            key: float(set_aucs(figures, arms[key], setup.primary).mean())
            for key in ("baseline1", "baseline2")
            if key in arms
        }
        if not means or "ceiling" not in arms:
            continue
        best = max(means, key=lambda key: means[key])
        three = [arms[key] for key in ("student", best, "ceiling")]
        tests = [record.tests_of(arm) for arm in three]
        seeds = sorted(set.intersection(*map(set, tests)))
        if seeds:
            share = _share(record, figures, three, tests, seeds)
            names = {"key": "student", "title": rows["student"].title, "backbone": backbone}
            lines.append(names | {"baseline": best} | asdict(share))
    return pd.DataFrame(lines)


def _share(
    record: StudyRecord,
    figures: pd.DataFrame,
    arms: Sequence[Arm],
    tests: Sequence[Mapping[int, pd.DataFrame]],
    seeds: list[int],
) -> ShareResult:
    setup = record.setup
    if setup.draws:
        aucs = [set_aucs(figures, arm, setup.primary).loc[seeds] for arm in arms]
        return share_of_draws(*(values.to_numpy(float) for values in aucs))
    scored = setup.primary, setup.classes, setup.positive
    stacked = [stack([part[seed] for seed in seeds], *scored) for part in tests]
    labels, _, groups = stacked[0]
    student, baseline, ceiling = (part[1] for part in stacked)
    return share_of_the_way(labels, student, baseline, ceiling, groups)


# Published results


class Reproduction(NamedTuple):
    """Result of a study beside the published one; the published mean is taken as exact."""

    backbone: str
    key: str  # row of the main table
    published: tuple[float, float]  # mean and std of the AUC
    mean: float
    std: float
    n: int  # number of seeds of the study
    difference: float  # mean of the study minus the published mean
    low: float  # 95 % t interval of the difference over the seeds of the study
    high: float


_KEYS = ("baseline1_paper", "baseline2", "student")
PUBLISHED: Mapping[Publication, Mapping[tuple[str, str], tuple[float, float]]] = {
    "teaching-ai-to-teach": {
        (backbone, key): result
        for backbone, results in {
            "densenet121": ((0.633, 0.04), (0.629, 0.039), (0.767, 0.020)),
            "resnet50": ((0.612, 0.05), (0.555, 0.061), (0.718, 0.012)),
            "legacy_xception": ((0.730, 0.02), (0.586, 0.074), (0.743, 0.005)),
            "inception_v3": ((0.679, 0.03), (0.610, 0.035), (0.746, 0.019)),
        }.items()
        for key, result in zip(_KEYS, results, strict=True)
    }
}
"""Mean and std of the AUC by publication, backbone in timm and row of the main table."""


def reproductions(
    publication: Publication, rows: Sequence[Row], figures: pd.DataFrame, primary: str
) -> list[Reproduction]:
    """Results on the primary set beside the published ones; missing ones are left out."""
    reproduced = []
    arms = {(backbone, row.key): arm for row in rows for backbone, arm in row.arms.items()}
    for (backbone, key), published in PUBLISHED[publication].items():
        if figures.empty or (backbone, key) not in arms:
            continue
        aucs = set_aucs(figures, arms[backbone, key], primary).dropna().to_numpy(float)
        if len(aucs):
            mean, std = mean_std(aucs)
            low, high = (end - published[0] for end in t_interval(aucs))
            own = (mean, std, len(aucs), mean - published[0], low, high)
            reproduced.append(Reproduction(backbone, key, published, *own))
    return reproduced
