"""Comparisons of Teachers that a search on validation has stopped: no interval over seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preceptor.report.questions import answers
from preceptor.report.sentences import sentences
from preceptor.report.tables import comparison_tables
from preceptor.results.domain import gather
from preceptor.results.schema import COMPARISONS
from preceptor.runtime.formatting import DASH
from preceptor.study.steps import Arm
from tests.studies import scored_study

SPLITS = {"train": 12, "val": 40, "test-unseen": 40}
INFERRED = ("low", "high", "p", "image_low", "image_high")


def effect(arm: Arm, seed: int) -> float:
    """Students of the human-guided Teacher are better."""
    better = 1.0 if "human-guided" in arm.teacher else 0.0
    return 0.5 + better + 0.05 * float(np.random.default_rng(seed).normal())


@pytest.mark.parametrize(("search", "stopped"), [("grid", False), ("halving", True)])
def test_a_comparison_that_was_stopped_has_no_interval(
    tmp_path: Path, search: str, stopped: bool
) -> None:
    values = {"seeds": 4, "search": search, "data_driven": True, "controls": (), "ceiling": False}
    plan = scored_study(tmp_path, effect, SPLITS, **values)
    assert bool(plan.dropped_teachers) == stopped
    results = gather(plan)
    found = results.comparisons
    (line,) = found[found["question"] == "RQ1"].to_dict("records")
    assert (line["stopped"], line["n"]) == (stopped, 2 if stopped else 4)
    assert line["mean"] > 0
    assert [bool(np.isnan(line[name])) for name in INFERRED] == [stopped] * len(INFERRED)
    others = found[found["question"] != "RQ1"]
    assert len(others)
    assert not others["stopped"].any()
    assert others[list(INFERRED)].notna().all(axis=None)
    assert "stopped" not in COMPARISONS.csv(found).splitlines()[0].split(",")

    said = [one for one in sentences(plan, found, results.shares) if one.startswith("RQ1")]
    words = "stopped early by validation, after 2 seeds; no interval"
    assert all((words in text) == stopped for text in (*said, answers(plan, results)["RQ1"]))
    ((_, table),) = comparison_tables(results, ["RQ1"])
    difference, seeds, p = table.lines[0].cells[:3]
    assert (difference.note == "stopped early by validation; no interval") == stopped
    assert (seeds.text == DASH, p.text == DASH, p.note == "") == (stopped,) * 3
