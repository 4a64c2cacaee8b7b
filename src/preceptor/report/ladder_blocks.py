"""Blocks of the page on ladders: the sentences, the figure and the tables."""

from __future__ import annotations

from collections.abc import Sequence

from preceptor.report.blocks import Block, Details, FigureBlock, TableBlock, Text, slug
from preceptor.report.ladder_figure import LEGEND, ladder_plot
from preceptor.report.ladder_words import (
    agreement_words,
    any_map_words,
    place_sentence,
    rung_sentences,
    rung_table,
)
from preceptor.results.domain import Results, StudyResults
from preceptor.results.ladder import Ladder


def ladder_blocks(results: Results) -> list[Block | None]:
    """Ladders of one domain, on the primary set first."""
    found = results.ladders_on(results.primary)
    if not found:
        return [Text(f"No Student has been scored on {results.primary} yet.", "none")]
    table, definition, agreement = rung_table(found), any_map_words(found), agreement_words(found)
    blocks: list[Block | None] = [
        Text(place_sentence(results) or " ".join(rung_sentences(found)), "answer"),
        Text(definition) if definition else None,
        _figure([(one.backbone, one) for one in found], f"AUC on {results.primary}"),
        TableBlock("rungs", table) if table else None,
        Text(agreement) if agreement else None,
    ]
    others: list[Text | TableBlock] = []
    for name in dict.fromkeys(ladder.set for ladder in results.ladders):
        other = rung_table(results.ladders_on(name)) if name != results.primary else None
        others += [TableBlock(f"rungs-{slug(name)}", other)] if other else []
    return [*blocks, Details("The same on the other sets", others) if others else None]


def domains_ladder(found: StudyResults) -> FigureBlock | None:
    """Figure of the ladders of all domains, each on its primary set; None without any."""
    several = any(len(one.ladders_on(one.primary)) > 1 for one in found.by_domain.values())
    rows = [
        (f"{name}, {ladder.backbone}" if several else name, ladder)
        for name, one in found.by_domain.items()
        for ladder in one.ladders_on(one.primary)
    ]
    return _figure(rows, "AUC on the primary set")


def _figure(rows: Sequence[tuple[str, Ladder]], axis: str) -> FigureBlock | None:
    drawing = ladder_plot(rows, axis)
    if drawing is None:
        return None
    caption = "Mean AUC and 95 % interval over seeds; the gain (place) is paired by seed"
    return FigureBlock("rungs", [(caption, drawing)], LEGEND, marks=True)
