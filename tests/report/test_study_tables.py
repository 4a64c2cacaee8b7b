"""Tables of a whole study: each value is in the column of its own baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preceptor.metrics.paired_tests import mean_std
from preceptor.report.blocks import mean_std_text
from preceptor.report.page import headlines
from preceptor.report.tables import budget_table, domain_table, worst_source_table
from preceptor.report.words import answers
from preceptor.results.ladder import LINES
from preceptor.utils.text import DASH, number
from tests.report.conftest import Written
from tests.report.ladders import compared
from tests.studies import gather, scored_study


def row(domain: str, place: int, auc: float) -> dict[str, Any]:
    """Student with AUC 0.8 against Baseline 1 or 2."""
    ours = {"student": 0.8, "student_std": 0.01, "baseline": auc, "baseline_std": 0.02, "n": 3}
    where = {"domain": domain, "backbone": "b", "primary": "test", "images": 100}
    return compared(0.8 - auc, key_b=f"baseline{place}", **where, **ours, p_floor=0.25)


def test_a_baseline_that_is_missing_leaves_its_column_empty() -> None:
    table = domain_table(
        pd.DataFrame([row("tiles", 1, 0.7), row("tiles", 2, 0.6), row("eyes", 2, 0.6)])
    )
    assert table is not None
    whole, part = (
        dict(zip(table.columns, [cell.text for cell in line.cells], strict=True))
        for line in table.lines
    )
    first, second = table.columns[1:3]
    assert (first, second) == ("Baseline 1, best α", "Baseline 2")
    assert (whole[first], whole[second]) == ("0.700 ± 0.020", "0.600 ± 0.020")
    assert whole["Student − stronger baseline"] == "+0.100"
    assert (part[first], part[second]) == (DASH, "0.600 ± 0.020")
    assert part["Student"] == "0.800 ± 0.010"
    assert part["Student − stronger baseline"] == DASH


def test_a_difference_of_some_of_the_seeds_says_so(tmp_path: Path) -> None:
    """Two of three seeds of Baseline 2 have finished; the third Student is much better."""
    splits = {"train": 24, "val": 12, "test": 60}
    plan = scored_study(
        tmp_path,
        lambda arm, seed: (
            -1.0 if arm.role == "baseline1" else (arm.role == "student") * (0.5 + 2.0 * (seed == 2))
        ),
        splits,
        primary="test",
        seeds=3,
        controls=(),
        ceiling=False,
    )
    (whole,) = headlines(plan, gather(plan))
    assert "common" not in whole["interval"]
    protocol = plan.protocol
    (lost,) = (one for one in plan.members if one.arm.role == "baseline2" and one.seed == 2)
    (protocol.evaluation_folder(protocol.evaluation_id(lost)) / "run.json").unlink()
    (part,) = headlines(plan, gather(plan))
    gain = float(part["gain"].replace("−", "-"))
    assert abs(gain - (float(part["student"]) - float(part["baseline"]))) > 0.02
    assert part["interval"].endswith("; of 2 common seeds")
    for one in plan.members:  # now no baseline is the stronger one
        if one.arm.role == "baseline2" and one.seed != 2:
            (protocol.evaluation_folder(protocol.evaluation_id(one)) / "run.json").unlink()
    results = gather(plan)
    assert headlines(plan, results) == []
    assert "compared with both baselines yet" in answers(plan, results)["RQ3"]
    lines = [row("tiles", 1, 0.7), row("tiles", 2, 0.75) | {"mean": 0.01, "n": 2}]
    table = domain_table(pd.DataFrame(lines))
    assert table is not None
    (cell,) = (one for one in table.lines[0].cells if one.text == "+0.010")
    assert cell.note == "of 2 common seeds"


def test_a_budget_has_a_column_for_each_curve_of_the_study(two_domains: Written) -> None:
    """The study of the fixture has no mapper."""
    plan = next(iter(two_domains.study.plans.values()))
    results = gather(plan)
    study = plan.protocol.study
    table = budget_table(study, results, "test_byobnet")
    assert table is not None
    without = [name for line, name in LINES.items() if line != "mapper"]
    assert table.columns[-len(without) :] == without
    assert all(cell.text != DASH for cell in table.lines[0].cells)
    mapper = results.budget[results.budget["line"] == "student"].assign(line="mapper")
    more = replace(results, budget=pd.concat([results.budget, mapper]))
    table = budget_table(study, more, "test_byobnet")
    assert table is not None
    assert table.columns[-len(LINES) :] == list(LINES.values())


def test_the_worst_source_is_that_of_each_seed(tmp_path: Path) -> None:
    """Accuracy of the worst source by seed, and the paired difference of the Student from it."""
    splits = {"train": 24, "val": 12, "test": 60}
    plan = scored_study(
        tmp_path, lambda arm, seed: 0.4 * (arm.role == "student"), splits, primary="test", seeds=3
    )
    results = gather(plan)
    table = worst_source_table(results, "test", "test_byobnet")
    assert table is not None
    figures = results.figures
    figures = figures[(figures["set"] == "test") & (figures["source"] != "")]
    worst = {
        role: [
            part["accuracy"].min() for _, part in figures[figures["role"] == role].groupby("seed")
        ]
        for role in ("student", "baseline2")
    }
    lines = {line.heading: [cell.text for cell in line.cells] for line in table.lines}
    titles = {row.key: row.title for row in results.setup.rows}
    assert lines[titles["student"]][0] == mean_std_text(*mean_std(worst["student"]))
    gain = np.subtract(worst["student"], worst["baseline2"]).mean()
    assert lines[titles["baseline2"]][3] == number(gain, sign=True)
