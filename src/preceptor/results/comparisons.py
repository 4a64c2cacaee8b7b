"""Paired comparisons of Students with baselines, controls and ceiling, on the primary set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.metrics.bootstrap import (
    ShareResult,
    share_of_draws,
    share_of_the_way,
    two_level_bootstrap,
)
from preceptor.metrics.paired_tests import PairedResult, holm, paired_difference, seeds_needed
from preceptor.metrics.scores import ALL_SOURCES, stack
from preceptor.results.record import StudyRecord
from preceptor.results.rows import DETECTORS, OVERALL, Row, control_keys, select_arm
from preceptor.study.steps import Arm


@dataclass(frozen=True)
class Pair:
    """Pair of arms to compare.

    Args:
        question: RQ1, RQ2, RQ3, saliency, control, detector, ceiling, variant or start.
        backbone: Backbone of the models.
        a, b: Arms; differences are a − b.
        key_a, key_b: Keys of their rows in the main table; "" for probe Students.
        title_a, title_b: Titles of the arms.
    """

    question: str
    backbone: str
    a: Arm
    b: Arm
    key_a: str
    key_b: str
    title_a: str
    title_b: str


BY_TEACHER = ("RQ1", "saliency")
"""Questions that compare probe Students by their Teachers."""
HALF_WIDTH = 0.01  # half width of the interval for `seeds_needed`


def compare(record: StudyRecord, figures: pd.DataFrame) -> pd.DataFrame:
    """Paired comparisons on the primary set.

    Columns: question (RQ1, RQ2, RQ3, saliency, control, detector, ceiling, variant, start,
    overall), backbone, a, b (titles), key_a, key_b (keys of rows in the main table, see `Row`; ""
    for probe Students), alpha_a, alpha_b (NaN for a mean over backbones), teacher_a, teacher_b
    (Teachers whose maps guide, see `Arm`; not in the CSV), n, mean, std, low, high (paired by
    seed), p, p_floor, p_holm (in the tested family; else NaN), image_low, image_high (two-level
    bootstrap), seeds_needed and seeds_cautious (for an interval of ±0.01, see `seeds_needed`),
    difference_by_seed. If every seed has its own images, the variation over seeds includes that
    over images, and both intervals are the same. Rows with the backbone `OVERALL` are means over
    backbones by seed.
    """
    setup = record.setup
    rows = {row.key: row for row in setup.rows}
    pairs: list[Pair] = []
    if "student" in rows:
        for key, question in (
            ("baseline1", "RQ2"),
            ("baseline2", "RQ2"),
            ("baseline1_paper", "RQ3"),
            *((control, "control") for control in control_keys()),
            ("ceiling", "ceiling"),
            *((detector, "detector") for detector in DETECTORS),
        ):
            if key in rows:
                pairs += [
                    Pair(
                        question,
                        name,
                        arm,
                        rows[key].arms[name],
                        "student",
                        key,
                        "Student",
                        rows[key].title,
                    )
                    for name, arm in rows["student"].arms.items()
                    if name in rows[key].arms
                ]
        for row in setup.rows:
            if row.variant:
                pairs += [
                    Pair(
                        "variant",
                        name,
                        arm,
                        rows["student"].arms[name],
                        row.key,
                        "student",
                        row.title,
                        "Student",
                    )
                    for name, arm in row.arms.items()
                ]
        for key in ("baseline1_started", "baseline2_started"):
            if key in rows and "student_started" in rows:
                started = rows["student_started"]
                pairs += [
                    Pair(
                        "start",
                        name,
                        arm,
                        rows[key].arms[name],
                        started.key,
                        key,
                        started.title,
                        rows[key].title,
                    )
                    for name, arm in started.arms.items()
                    if name in rows[key].arms
                ]
    pairs += [
        Pair(
            one.question,
            one.a.backbone,
            one.a,
            one.b,
            "",
            "",
            f"Students of {one.a.teacher}",
            f"Students of {one.b.teacher}",
        )
        for one in setup.pairs
    ]
    scored = setup.primary, setup.classes, setup.positive
    lines: list[dict[str, Any]] = []
    for pair in pairs:
        a, b = pair.a, pair.b
        ours, theirs = record.tests_of(a), record.tests_of(b)
        seeds = sorted(set(ours) & set(theirs))
        if not seeds:
            continue
        aucs = [set_aucs(figures, arm, setup.primary).loc[seeds] for arm in (a, b)]
        by_seed = (aucs[0] - aucs[1]).to_numpy(float)
        paired = paired_difference(aucs[0], aucs[1])
        over_images = paired.low, paired.high
        if not setup.draws:
            labels, left, groups = stack([ours[seed] for seed in seeds], *scored)
            _, right, _ = stack([theirs[seed] for seed in seeds], *scored)
            images = two_level_bootstrap(labels, left, right, groups)
            over_images = images.low, images.high
        lines.append(
            {
                "question": pair.question,
                "backbone": pair.backbone,
                "a": pair.title_a,
                "b": pair.title_b,
                "key_a": pair.key_a,
                "key_b": pair.key_b,
                "alpha_a": a.alpha,
                "alpha_b": b.alpha,
                "teacher_a": a.teacher,
                "teacher_b": b.teacher,
                "stopped": False,
            }
            | _paired_line(by_seed, paired, over_images)
        )
    lines += _over_backbones(record, rows, figures)
    return correct([pd.DataFrame(lines)])[0]


def correct(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Holm's correction of the comparisons of a study, given as one table per domain."""
    parts = [
        table.loc[table["question"] == "RQ2", "p"] if len(table) else pd.Series(dtype=float)
        for table in tables
    ]
    adjusted = holm(np.concatenate([part.to_numpy(float) for part in parts]))
    found, start = [], 0
    for table, part in zip(tables, parts, strict=True):
        fresh = table.copy()
        if len(part):
            fresh.loc[part.index, "p_holm"] = adjusted[start : start + len(part)]
        start += len(part)
        found.append(fresh)
    return found


def _over_backbones(
    record: StudyRecord, rows: Mapping[str, Row], figures: pd.DataFrame
) -> list[dict[str, Any]]:
    """Comparisons of the Student with baselines and ceiling, as means over backbones by seed."""
    setup, lines = record.setup, []
    for key in ("baseline1", "baseline1_paper", "baseline2", "ceiling"):
        if len(setup.students) < 2 or key not in rows or "student" not in rows:
            continue
        sides = []
        for row in (rows["student"], rows[key]):
            aucs = [
                set_aucs(figures, row.arms[name], setup.primary)
                for name in setup.students
                if name in row.arms
            ]
            sides.append(pd.concat(aucs, axis=1) if len(aucs) == len(setup.students) else None)
        ours, theirs = sides
        if ours is None or theirs is None:
            continue
        seeds = sorted(set(ours.dropna().index) & set(theirs.dropna().index))
        if seeds:
            both = [side.loc[seeds].mean(axis=1).to_numpy(float) for side in (ours, theirs)]
            at = {
                "question": "overall",
                "backbone": OVERALL,
                "a": "Student",
                "b": rows[key].title,
                "key_a": "student",
                "key_b": key,
                "alpha_a": np.nan,
                "alpha_b": np.nan,
                "teacher_a": "",
                "teacher_b": "",
                "stopped": False,
            }
            paired = paired_difference(both[0], both[1])
            images = (paired.low, paired.high) if setup.draws else (np.nan, np.nan)
            lines.append(at | _paired_line(both[0] - both[1], paired, images))
    return lines


def _paired_line(
    by_seed: NDArray[np.float64], paired: PairedResult, over_images: tuple[float, float]
) -> dict[str, Any]:
    seeds = seeds_needed(by_seed, HALF_WIDTH)
    return {
        "n": paired.n,
        "mean": paired.mean,
        "std": paired.std,
        "low": paired.low,
        "high": paired.high,
        "p": paired.p,
        "p_floor": paired.p_floor,
        "p_holm": np.nan,
        "image_low": over_images[0],
        "image_high": over_images[1],
        "seeds_needed": seeds.expected if seeds else np.nan,
        "seeds_cautious": seeds.cautious if seeds else np.nan,
        "difference_by_seed": [round(float(value), 6) for value in by_seed],
    }


def set_aucs(figures: pd.DataFrame, arm: Arm, name: str) -> pd.Series:
    """AUC of an arm on a whole evaluation set, by seed."""
    part = select_arm(figures, arm)
    return part[(part["set"] == name) & (part["source"] == ALL_SOURCES)].set_index("seed")["auc"]


def best_baseline(
    rows: Mapping[str, Row], figures: pd.DataFrame, primary: str, backbone: str
) -> str | None:
    """Key of the baseline with the higher mean AUC on the primary set."""
    means = {
        key: float(set_aucs(figures, rows[key].arms[backbone], primary).mean())
        for key in ("baseline1", "baseline2")
        if key in rows and backbone in rows[key].arms
    }
    return max(means, key=lambda key: means[key]) if means else None


def shares(record: StudyRecord, figures: pd.DataFrame) -> pd.DataFrame:
    """Share of the way to the ceiling of the Student and of each variant, by backbone.

    Columns: key, title, backbone, baseline (the better one), share, low, high, reason.
    """
    setup = record.setup
    lines = []
    for row in setup.rows:
        if row.key != "student" and not row.variant:
            continue
        for backbone in row.arms:
            found = share_of_way(record, figures, row.key, backbone, setup.primary)
            if found is not None:
                best, share = found
                lines.append(
                    {
                        "key": row.key,
                        "title": row.title,
                        "backbone": backbone,
                        "baseline": best,
                        "share": share.share,
                        "low": share.low,
                        "high": share.high,
                        "reason": share.reason,
                    }
                )
    return pd.DataFrame(lines)


def share_of_way(
    record: StudyRecord, figures: pd.DataFrame, key: str, backbone: str, name: str
) -> tuple[str, ShareResult] | None:
    """Share of the way from the better baseline of a set to the ceiling.

    Args:
        record: Record of the study.
        figures: Metrics, see `Results.figures`.
        key: Key of the row of the Student or a variant.
        backbone: Backbone of the models.
        name: Test set.

    Returns:
        Key of the better baseline, and the share over the seeds with scores of all three; None if
        there is no such seed, no baseline or no ceiling.
    """
    setup = record.setup
    rows = {row.key: row for row in setup.rows}
    best = best_baseline(rows, figures, name, backbone)
    keys = (key, best or "", "ceiling")
    arms = [rows[one].arms[backbone] for one in keys if one in rows and backbone in rows[one].arms]
    if best is None or len(arms) < len(keys):
        return None
    frames = [record.tests_of(arm) for arm in arms]
    seeds = sorted(set.intersection(*(set(part) for part in frames)))
    if not seeds:
        return None
    if setup.draws:
        aucs = [set_aucs(figures, arm, name).loc[seeds] for arm in arms]
        return best, share_of_draws(*(values.to_numpy(float) for values in aucs))
    scored = name, setup.classes, setup.positive
    stacked = [stack([part[seed] for seed in seeds], *scored) for part in frames]
    labels, _, groups = stacked[0]
    student, baseline, ceiling = (part[1] for part in stacked)
    return best, share_of_the_way(labels, student, baseline, ceiling, groups)
