"""What is said and drawn of a ladder is true of a gain, of none, and of a loss."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from preceptor.report import page
from preceptor.results.domain import Results
from preceptor.results.ladder import Ladder
from preceptor.results.tables import FIGURES
from tests.report.ladders import ladder

RAISES = "the place that the Teacher's maps show increases the AUC"
NOT_SHOWN = "a gain from the place is not shown"


def test_blocks_begin_with_the_answer_and_end_with_the_other_sets() -> None:
    def on(name: str) -> Ladder:
        return replace(ladder(0.05, 0.02), set=name)

    runs = pd.DataFrame({"run": ["one"], "finished": [True]})
    found = Results("test", "marked", ["marked", "plain"], runs, FIGURES.empty())
    assert [block.form for block in page._ladder(found) if block] == ["text"]
    found.ladders = [on("test"), on("test-seen"), on("val")]
    forms = [block.form for block in page._ladder(found) if block]
    assert forms == ["text", "text", "figures", "table", "fold"]
    found.ladders = [on("test")]
    assert [block.form for block in page._ladder(found) if block][-1] == "table"
