"""Pages of the gallery: made from the tables of the studies, and described."""

from __future__ import annotations

from typing import Any

import pytest

from preceptor.results import read
from preceptor.runtime.formatting import number
from tests.documents import ROOT, docs_module

gallery = docs_module("gallery_pages")
TEXT = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("study", gallery.STUDIES, ids=lambda study: study.name)
def test_a_page_has_the_numbers_of_the_study(study: Any) -> None:
    tables = read(gallery.EVIDENCE / study.folder)
    page, figure = gallery.page_of(study, tables), gallery.figure_of(tables)
    table = tables.table[(tables.table["set"] == study.primary) & (tables.table["source"] == "")]
    for row in table.to_dict("records"):
        assert f"| {row['title']} | {number(row['mean'])} ± {number(row['std'])} |" in page
    (first, *_) = tables.comparisons.to_dict("records")
    assert f"| {first['b']} | {number(first['mean'], sign=True)} |" in page
    assert number(first["mean"], sign=True) in figure
    assert ("any map" in page) == (not tables.ladder.empty)


@pytest.mark.parametrize("study", gallery.STUDIES, ids=lambda study: study.name)
def test_it_is_described(study: Any) -> None:
    (section,) = (one for one in TEXT.split("\n## ") if f"<gallery/generated/{study.name}>" in one)
    assert f"{{image}} gallery/generated/{study.name}.svg" in section
    assert "What to look at:" in section
    assert "```sh\n" in section
