"""Paired comparisons of Students with baselines, controls and ceiling, on the primary set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.evaluation.statistics import (
    holm,
    paired_difference,
    share_of_the_way,
    two_level_bootstrap,
)
from preceptor.runs import is_finished, read_scores
from preceptor.study.graph import Arm
from preceptor.study.plan import Plan
from preceptor.study.rows import Row, records, select_arm
from preceptor.study.selection import stack


def _scores(plan: Plan, figures: pd.DataFrame, arm: Arm) -> dict[int, pd.DataFrame]:
    """Test score tables of an arm by seed."""
    protocol = plan.protocol
    found = {}
    part = select_arm(figures, arm)
    for row in records(part[["seed", "run"]].drop_duplicates()):
        folder = protocol.evaluation_folder(protocol.evaluation_id(row["run"]))
        if is_finished(folder):
            found[int(row["seed"])] = read_scores(folder)
    return found


def compare(plan: Plan, rows_shown: Sequence[Row], figures: pd.DataFrame) -> pd.DataFrame:
    """Paired comparisons on the primary set.

    Columns: question (RQ1, RQ2, control, ceiling), backbone, a, b (titles), n, mean, std, low, high
    (paired by seed), p, p_floor, p_holm (the family alone, else NaN), image_low, image_high (the
    two-level bootstrap), difference_by_seed.
    """
    rows = {row.key: row for row in rows_shown}
    pairs: list[tuple[str, str, Arm, Arm, str, str]] = []
    if "student" in rows:
        for key, question in (
            ("baseline1", "RQ2"), ("baseline2", "RQ2"), ("baseline1_paper", "RQ3"),
            ("shuffled", "control"), ("centre", "control"), ("ceiling", "ceiling"),
        ):  # fmt: skip
            if key in rows:
                pairs += [
                    (question, name, arm, rows[key].arms[name], "Student", rows[key].title)
                    for name, arm in rows["student"].arms.items()
                    if name in rows[key].arms
                ]
    pairs += _teacher_pairs(plan)
    scored = _scored(plan)
    lines: list[dict[str, Any]] = []
    for question, backbone, a, b, title_a, title_b in pairs:
        ours, theirs = _scores(plan, figures, a), _scores(plan, figures, b)
        seeds = sorted(set(ours) & set(theirs))
        if not seeds:
            continue
        labels, left, groups = stack([ours[seed] for seed in seeds], *scored)
        _, right, _ = stack([theirs[seed] for seed in seeds], *scored)
        aucs = [set_aucs(figures, arm, plan.protocol.primary).loc[seeds] for arm in (a, b)]
        by_seed = (aucs[0] - aucs[1]).to_numpy(float)
        paired = paired_difference(*aucs)
        images = two_level_bootstrap(labels, left, right, groups)
        lines.append(
            {
                "question": question, "backbone": backbone, "a": title_a, "b": title_b,
                "n": paired.n, "mean": paired.mean, "std": paired.std, "low": paired.low,
                "high": paired.high, "p": paired.p, "p_floor": paired.p_floor,
                "p_holm": np.nan, "image_low": images.low, "image_high": images.high,
                "difference_by_seed": [round(float(value), 6) for value in by_seed],
            }
        )  # fmt: skip
    table = pd.DataFrame(lines)
    if not table.empty:
        family = table["question"] == "RQ2"
        table.loc[family, "p_holm"] = holm(table.loc[family, "p"].to_numpy(float))
    return table


def _teacher_pairs(plan: Plan) -> list[tuple[str, str, Arm, Arm, str, str]]:
    """RQ1: the probe Students of each human-guided Teacher against the data-driven one's."""
    study, teachers = plan.protocol.study, plan.protocol.teachers()
    backbone = study.probe_backbone
    alpha = study.stage_one_alpha if study.plan == "staged" else study.alpha_grid[0]
    pairs = []
    for human in teachers:
        for data in teachers:
            if (human.kind, data.kind) == ("human", "data") and (human.name, human.method) == (
                data.name,
                data.method,
            ):
                pairs.append(
                    (
                        "RQ1",
                        backbone,
                        Arm("student", backbone, alpha, str(human)),
                        Arm("student", backbone, alpha, str(data)),
                        f"Students of {human}",
                        f"Students of {data}",
                    )
                )
    return pairs


def set_aucs(figures: pd.DataFrame, arm: Arm, name: str) -> pd.Series:
    """AUC of an arm on a whole evaluation set, by seed."""
    part = select_arm(figures, arm)
    return part[(part["set"] == name) & (part["source"] == ALL_SOURCES)].set_index("seed")["auc"]


def best_baseline(
    rows: Mapping[str, Row], figures: pd.DataFrame, primary: str, backbone: str
) -> str | None:
    """The key of the baseline with the higher mean AUC on the primary set: baseline1 or 2."""
    means = {
        key: float(set_aucs(figures, rows[key].arms[backbone], primary).mean())
        for key in ("baseline1", "baseline2")
        if key in rows and backbone in rows[key].arms
    }
    return max(means, key=lambda key: means[key]) if means else None


def shares(plan: Plan, rows_shown: Sequence[Row], figures: pd.DataFrame) -> pd.DataFrame:
    """The share of the way to the ceiling: a row a backbone: baseline, share, low, high, reason."""
    rows = {row.key: row for row in rows_shown}
    if not {"student", "ceiling"} <= set(rows):
        return pd.DataFrame()
    scored = _scored(plan)
    lines = []
    for backbone, arm in rows["student"].arms.items():
        best = best_baseline(rows, figures, plan.protocol.primary, backbone)
        if best is None or backbone not in rows["ceiling"].arms:
            continue
        arms = (arm, rows[best].arms[backbone], rows["ceiling"].arms[backbone])
        frames = [_scores(plan, figures, one) for one in arms]
        seeds = sorted(set.intersection(*(set(part) for part in frames)))
        if not seeds:
            continue
        stacked = [stack([part[seed] for seed in seeds], *scored) for part in frames]
        labels, _, groups = stacked[0]
        student, baseline, ceiling = (part[1] for part in stacked)
        share = share_of_the_way(labels, student, baseline, ceiling, groups)
        lines.append(
            {
                "backbone": backbone, "baseline": best, "share": share.share, "low": share.low,
                "high": share.high, "reason": share.reason,
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def _scored(plan: Plan) -> tuple[str, list[str], str | None]:
    """The primary set, the classes and the positive one, as `stack` takes them."""
    protocol = plan.protocol
    return protocol.primary, protocol.workspace.manifest.classes, protocol.study.positive
