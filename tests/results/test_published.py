"""Published results beside those of a study: the values, the differences and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pandas as pd
import pytest
from scipy import stats

from preceptor.report.blocks import Table, Text
from preceptor.report.page import _published
from preceptor.results.comparisons import PUBLISHED, reproductions
from preceptor.results.domain import Results
from preceptor.results.record import Row
from preceptor.study.config import Publication
from preceptor.study.steps import Arm
from tests.studies import record_with

PAPER: Publication = "teaching-ai-to-teach"


def results(aucs: dict[str, Sequence[float]], key: str = "baseline2") -> Results:
    """Results of one row on a test set by backbone, and others on another set."""
    figures = [
        {"role": "baseline2", "backbone": backbone, "alpha": 1.0, "guidance": "", "teacher": ""}
        | {"seed": seed, "set": name, "source": source, "auc": auc + change}
        for backbone, values in aucs.items()
        for seed, auc in enumerate(values)
        for name, source, change in (("test", "", 0.0), ("test", "gan", 0.1), ("val", "", 0.2))
    ]
    arms = {backbone: Arm("baseline2", backbone, 1.0) for backbone in aucs}
    rows = Row(key, "Title", arms), Row("ceiling", "Ceiling", arms)
    record = record_with("test", ("fake", "real"), "fake", rows=rows)
    return Results(record, pd.DataFrame(), pd.DataFrame(figures))


def test_every_publication_has_its_table() -> None:
    assert set(PUBLISHED) == set(get_args(Publication))
    found = PUBLISHED[PAPER]
    assert len(found) == 12
    assert found["densenet121", "baseline1_paper"] == (0.633, 0.04)
    assert found["legacy_xception", "baseline2"] == (0.586, 0.074)
    assert found["inception_v3", "student"] == (0.746, 0.019)


def test_the_difference_has_the_interval_of_the_seeds() -> None:
    aucs = [0.60, 0.65, 0.70]
    given = results({"resnet50": aucs, "another": [0.5]})
    (found,) = reproductions(PAPER, given.setup.rows, given.figures, given.setup.primary)
    assert (found.backbone, found.published, found.n) == ("resnet50", (0.555, 0.061), 3)
    assert found.difference == pytest.approx(0.65 - 0.555)
    half = stats.t.ppf(0.975, 2) * 0.05 / 3**0.5
    assert (found.low, found.high) == (
        pytest.approx(found.difference - half),
        pytest.approx(found.difference + half),
    )


def test_the_table_of_the_page() -> None:
    close, above = [0.60, 0.61, 0.62], [0.90, 0.91, 0.92]
    answer, source, block = _published(
        PAPER, results({"inception_v3": close, "densenet121": above})
    )
    assert isinstance(answer, Text)
    assert answer.text.startswith("Of 2 published means, 1 are within")
    assert "0 are above it and 1 below it" in answer.text
    assert isinstance(source, Text)
    assert "BMVC 2023" in source.text
    assert isinstance(block, Table)
    (first, second) = block.lines
    assert first.heading == "densenet121: Baseline 2"
    assert [cell.text for cell in first.cells] == [
        "0.629 ± 0.039",
        "0.910 ± 0.010",
        "+0.281",
        "+0.256 to +0.306",
    ]
    assert second.cells[1].note == "3 seeds"


def test_one_seed_has_no_interval() -> None:
    answer, _, block = _published(PAPER, results({"resnet50": [0.6]}))
    assert isinstance(answer, Text)
    assert "no intervals" in answer.text
    assert isinstance(block, Table)
    assert block.lines[0].cells[-1].text == "–"


@pytest.mark.parametrize("found", [results({"other": [0.5]}), results({"resnet50": [0.5]}, "pca")])
def test_nothing_to_compare_is_said(found: Results) -> None:
    (told,) = _published(PAPER, found)
    assert isinstance(told, Text)
    assert told.kind == "none"
    assert "densenet121, resnet50, legacy_xception, inception_v3" in told.text
