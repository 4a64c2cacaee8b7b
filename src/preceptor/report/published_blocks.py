"""Blocks of the page on published results of the same data."""

from __future__ import annotations

from collections.abc import Sequence

from preceptor.report.blocks import Block, TableBlock, Text
from preceptor.report.cells import Cell, Line, Table, mean_std_text, short
from preceptor.results.domain import Results
from preceptor.results.published import PUBLISHED, Reproduction, reproductions
from preceptor.runtime.text import interval, number
from preceptor.study.config import Publication

_SOURCES: dict[Publication, str] = {
    "teaching-ai-to-teach": "Published: Crum, Boyd, Bowyer, Czajka, Teaching AI to Teach, BMVC "
    "2023, Table 2, with Baseline 1 at α 0.5, maps of a human-guided Xception (CAM) and Students "
    "at α 0.01. Here, Teacher and α of the Students are selected on validation data."
}


def published_blocks(publication: Publication, results: Results) -> list[Block | None]:
    """Published results beside those of the study."""
    found = reproductions(publication, results)
    if not found:
        names = dict.fromkeys(one.backbone for one in PUBLISHED[publication])
        return [
            Text(
                f"No result on {results.primary} yet for a backbone of the published table "
                f"({', '.join(names)}).",
                "none",
            )
        ]
    return [
        Text(_sentence(found), "answer"),
        Text(_SOURCES[publication]),
        TableBlock("published", _table(results, found)),
    ]


def _sentence(found: Sequence[Reproduction]) -> str:
    known = [one for one in found if one.low == one.low]
    if not known:
        return (
            "The differences from the published results have no intervals: intervals need two "
            "seeds or more."
        )
    above, below = sum(one.low > 0 for one in known), sum(one.high < 0 for one in known)
    return (
        f"Of {len(known)} published means, {len(known) - above - below} are within the 95 % "
        f"interval of this study's mean, {below} are above it and {above} below it."
    )


def _table(results: Results, found: Sequence[Reproduction]) -> Table:
    lines = []
    for one in found:
        published = one.published
        own = Cell(mean_std_text(one.mean, one.std), f"{one.n} seed{'s' if one.n != 1 else ''}")
        lines.append(
            Line(
                f"{published.backbone}: {short(published.key)}",
                [
                    Cell(mean_std_text(published.mean, published.std)),
                    own,
                    Cell(number(one.difference, sign=True)),
                    Cell(interval(one.low, one.high)),
                ],
                strong=published.key == "student",
            )
        )
    caption = (
        f"AUC on {results.primary}, mean ± standard deviation over trainings. The interval is a t "
        "interval over the seeds of this study; the published mean is treated as exact, because "
        "its number of trainings is not known. An interval with its error would be wider."
    )
    columns = ["Published", "This study", "This study − published", "95 % interval"]
    return Table(caption, "Row", columns, lines)
