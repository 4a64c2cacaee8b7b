"""Paired comparisons of Students with baselines, controls and ceiling, on the primary set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.evaluation.bootstrap import two_level_bootstrap
from preceptor.evaluation.paired_tests import PairedResult, holm, seeds_needed
from preceptor.evaluation.scores import ALL_SOURCES, stack
from preceptor.evaluation.sequential import sequential_difference, sequential_level
from preceptor.results.rows import DETECTORS, OVERALL, Row, control_keys, select_arm
from preceptor.results.score_files import ScoreFiles
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm
from preceptor.study.teacher import teachers_of


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
_INFERRED = ("low", "high", "p", "image_low", "image_high")
HALF_WIDTH = 0.01  # half width of the interval for `seeds_needed`


def compare(
    plan: Plan, rows_shown: Sequence[Row], figures: pd.DataFrame, files: ScoreFiles
) -> pd.DataFrame:
    """Paired comparisons on the primary set.

    Columns: question (RQ1, RQ2, RQ3, saliency, control, detector, ceiling, variant, start,
    overall), backbone, a, b (titles), key_a, key_b (keys of rows in the main table, see `Row`; ""
    for probe Students), alpha_a, alpha_b (NaN for a mean over backbones), teacher_a, teacher_b
    (Teachers whose maps guide, see `Arm`; not in the CSV), stopped (whether validation has dropped
    one of these Teachers after some of the seeds; not in the CSV), n, mean, std, low, high (paired
    by seed), p, p_floor, p_holm (in the tested family; else NaN), image_low, image_high (two-level
    bootstrap), seeds_needed and seeds_cautious (for an interval of ±0.01, see `seeds_needed`),
    difference_by_seed. If every seed has its own images, the variation over seeds includes that
    over images, and both intervals are the same. If the number of seeds is auto, intervals and
    p-values are corrected for the looks (`sequential_difference`), except for those of Teachers,
    whose probe Students have the seeds of the first look. A comparison that validation has stopped
    early has no interval and no p-value, since its number of seeds depends on the size of the
    difference. Rows with the backbone `OVERALL` are means over backbones by seed.
    """
    rows = {row.key: row for row in rows_shown}
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
        for row in rows_shown:
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
    pairs += _teacher_pairs(plan)
    scored, dropped = primary_scores(plan), plan.dropped_teachers
    lines: list[dict[str, Any]] = []
    for pair in pairs:
        a, b = pair.a, pair.b
        ours, theirs = (files.tests_of(plan, side) for side in (a, b))
        seeds = sorted(set(ours) & set(theirs))
        if not seeds:
            continue
        aucs = [set_aucs(figures, arm, plan.protocol.primary).loc[seeds] for arm in (a, b)]
        by_seed = (aucs[0] - aucs[1]).to_numpy(float)
        looks = () if pair.question in BY_TEACHER else plan.protocol.study.looks
        paired = sequential_difference(aucs[0], aucs[1], looks)
        over_images = paired.low, paired.high
        if not plan.protocol.study.draws:
            labels, left, groups = stack([ours[seed] for seed in seeds], *scored)
            _, right, _ = stack([theirs[seed] for seed in seeds], *scored)
            images = two_level_bootstrap(labels, left, right, groups, level=sequential_level(looks))
            over_images = images.low, images.high
        stopped = pair.question in BY_TEACHER and not dropped.isdisjoint((a.teacher, b.teacher))
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
                "stopped": stopped,
            }
            | _paired_line(by_seed, paired, over_images)
            | (dict.fromkeys(_INFERRED, np.nan) if stopped else {})
        )
    lines += _over_backbones(plan, rows, figures)
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
    plan: Plan, rows: Mapping[str, Row], figures: pd.DataFrame
) -> list[dict[str, Any]]:
    """Comparisons of the Student with baselines and ceiling, as means over backbones by seed."""
    study, lines = plan.protocol.study, []
    for key in ("baseline1", "baseline1_paper", "baseline2", "ceiling"):
        if len(study.students) < 2 or key not in rows or "student" not in rows:
            continue
        sides = []
        for row in (rows["student"], rows[key]):
            aucs = [
                set_aucs(figures, row.arms[name], plan.protocol.primary)
                for name in study.students
                if name in row.arms
            ]
            sides.append(pd.concat(aucs, axis=1) if len(aucs) == len(study.students) else None)
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
            paired = sequential_difference(both[0], both[1], study.looks)
            images = (paired.low, paired.high) if study.draws else (np.nan, np.nan)
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


def _teacher_pairs(plan: Plan) -> list[Pair]:
    """Pairs of probe Students by their Teachers: human-guided and data-driven (RQ1), and RISE maps
    and CAMs (saliency)."""
    study, teachers = plan.protocol.study, teachers_of(plan.protocol.study)
    backbone, setting = study.probe_backbone, study.probe_setting
    pairs = []
    for one, other in product(teachers, teachers):
        if one.kind == "given" or one.name != other.name:
            continue
        if (one.kind, other.kind) == ("human", "data") and one.method == other.method:
            question = "RQ1"
        elif one == replace(other, method="rise") and other.method == "cam":
            question = "saliency"
        else:
            continue
        ours, theirs = (
            Arm("student", backbone, setting.alpha, str(by), guidance=setting.guidance)
            for by in (one, other)
        )
        titles = f"Students of {one}", f"Students of {other}"
        pairs.append(Pair(question, backbone, ours, theirs, "", "", *titles))
    return pairs


def set_aucs(figures: pd.DataFrame, arm: Arm, name: str) -> pd.Series:
    """AUC of an arm on a whole evaluation set, by seed."""
    part = select_arm(figures, arm)
    return part[(part["set"] == name) & (part["source"] == ALL_SOURCES)].set_index("seed")["auc"]


def primary_scores(plan: Plan) -> tuple[str, list[str], str | None]:
    """Primary set, classes and positive class, as arguments of `stack`."""
    protocol = plan.protocol
    return protocol.primary, protocol.workspace.manifest.classes, protocol.study.positive
