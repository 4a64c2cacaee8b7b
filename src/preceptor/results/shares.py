"""Shares of the way from the better baseline to the ceiling, of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from preceptor.evaluation.scores import stack
from preceptor.evaluation.sequential import sequential_level
from preceptor.evaluation.share_of_the_way import ShareResult, share_of_draws, share_of_the_way
from preceptor.results.comparisons import primary_scores, set_aucs
from preceptor.results.rows import Row
from preceptor.results.score_files import ScoreFiles
from preceptor.study.plan import Plan


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


def shares(
    plan: Plan, rows_shown: Sequence[Row], figures: pd.DataFrame, files: ScoreFiles
) -> pd.DataFrame:
    """Share of the way to the ceiling of the Student and of each variant, by backbone.

    Columns: key, title, backbone, baseline (the better one), share, low, high, reason.
    """
    rows, lines = {row.key: row for row in rows_shown}, []
    for row in rows_shown:
        if row.key != "student" and not row.variant:
            continue
        for backbone in row.arms:
            found = share_of_way(
                plan, rows, figures, files, row.key, backbone, plan.protocol.primary
            )
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
    plan: Plan,
    rows: Mapping[str, Row],
    figures: pd.DataFrame,
    files: ScoreFiles,
    key: str,
    backbone: str,
    name: str,
) -> tuple[str, ShareResult] | None:
    """Share of the way from the better baseline of a set to the ceiling.

    Args:
        plan: Plan of the study.
        rows: Rows of the main table by key.
        figures: Metrics, see `Results.figures`.
        files: Score files of the study.
        key: Key of the row of the Student or a variant.
        backbone: Backbone of the models.
        name: Test set.

    Returns:
        Key of the better baseline, and the share over the seeds with scores of all three; None if
        there is no such seed, no baseline or no ceiling.
    """
    best = best_baseline(rows, figures, name, backbone)
    keys = (key, best or "", "ceiling")
    arms = [rows[one].arms[backbone] for one in keys if one in rows and backbone in rows[one].arms]
    if best is None or len(arms) < len(keys):
        return None
    frames = [files.tests_of(plan, arm) for arm in arms]
    seeds = sorted(set.intersection(*(set(part) for part in frames)))
    if not seeds:
        return None
    level = sequential_level(plan.protocol.study.looks)
    if plan.protocol.study.draws:
        aucs = [set_aucs(figures, arm, name).loc[seeds] for arm in arms]
        return best, share_of_draws(*(values.to_numpy(float) for values in aucs), level=level)
    scored = (name, *primary_scores(plan)[1:])
    stacked = [stack([part[seed] for seed in seeds], *scored) for part in frames]
    labels, _, groups = stacked[0]
    student, baseline, ceiling = (part[1] for part in stacked)
    return best, share_of_the_way(labels, student, baseline, ceiling, groups, level=level)
