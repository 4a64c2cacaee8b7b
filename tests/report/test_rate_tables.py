"""Tables of error rates: labels of operating points, and models without a threshold."""

from __future__ import annotations

import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.metrics.operating_points import APCERS, Field, roc_rates, threshold_rates
from preceptor.report.tables import fixed_rate_table, roc_rate_table
from preceptor.results.domain import Results
from preceptor.results.record import Row
from preceptor.results.tables import FIGURES, RUNS
from preceptor.study.config import StudyConfig
from preceptor.study.steps import Arm
from preceptor.utils.text import DASH
from tests.studies import record_with

ARM = Arm("student", "net", 0.5)


def results() -> Results:
    """Rates of one Student on positives of two sources, one of which is missed."""
    truth = [True] * 200 + [False] * 200
    scores = [0.9] * 100 + [0.1] * 100 + [0.05] * 100 + [0.5] * 100
    sources = ["easy"] * 100 + ["hard"] * 100 + [""] * 200
    identity = {"role": "student", "backbone": "net", "guidance": "", "alpha": 0.5, "teacher": ""}
    rates = pd.DataFrame(
        {**identity, "seed": 0, "run": "a", "set": "test", "kind": "roc", **rate.__dict__}
        for rate in roc_rates(truth, scores, sources)
    )
    row = Row("student", "Student", {"net": ARM})
    record = record_with("test", ("fake", "real"), "fake", rows=(row,))
    return Results(record, RUNS.empty(), FIGURES.empty(), rates=rates)


@pytest.mark.parametrize(
    ("terms", "label"),
    [
        ("pad", "BPCER at APCER, worst source ≤ 5 %"),
        ("medical", "False alarms (1 − specificity) at Missed, worst group ≤ 5 %"),
        ("generic", "False positive rate at False negative rate, worst source ≤ 5 %"),
    ],
)
def test_the_label_names_the_worst_source(terms: Field, label: str) -> None:
    values = {"manifest": "m.csv", "teachers": ["net"], "students": ["net"], "terms": terms}
    table = roc_rate_table(parse_config(values, StudyConfig), results(), "test", "net")
    assert table is not None
    assert 0.05 in APCERS
    # Only one of the hard source may be missed, although all of the easy one are found.
    cell = dict(zip(table.columns, table.lines[0].cells, strict=True))[label]
    assert cell.text.startswith("0.500")


def test_models_without_a_threshold_are_counted() -> None:
    """One of three seeds has a rule that no threshold of its float32 scores satisfies."""
    found = results()
    identity = {name: found.rates[name].iloc[0] for name in ("role", "backbone", "guidance")}
    identity |= {"alpha": 0.5, "teacher": "", "set": "test"}
    found.rates = pd.DataFrame(
        {**identity, "seed": seed, "run": str(seed), "kind": "fixed", **rate.__dict__}
        for seed in (0, 2)
        for rate in threshold_rates([True, False], [0.9, 0.1], ["", ""], 0.5)
    )
    found.figures = pd.DataFrame({**identity, "seed": seed, "source": ""} for seed in range(3))
    study = parse_config(
        {"manifest": "m.csv", "teachers": ["net"], "students": ["net"]}, StudyConfig
    )
    table = fixed_rate_table(study, found, "test", "net")
    assert table is not None
    assert "left out: 1 of 3 models of “Student”" in table.caption
    found.rates = found.rates[:0]
    table = fixed_rate_table(study, found, "test", "net")
    assert table is not None
    assert "left out: 3 of 3 models of “Student”" in table.caption
    assert {cell.text for line in table.lines for cell in line.cells} == {DASH}
