"""Typed values are handed on as such: no module reads them back out of text made for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "preceptor"


@pytest.mark.parametrize(
    "pattern",
    [
        r"str\.contains\(",
        r"removeprefix\(\"Control",
        r"\{row\.title: row\.key",
        r"\{row\.title: short\(row\.key\)",
        r"row\.title ==",
        r"set_index\(\"title\"\)",
        r"\.replace\(\"Students of",
        r"== f\"Students of",
        # Roles, selections and steps.
        r"partition\(\" @ ",
        r"(starts|ends)with\(\"(variant|generation|student|teacher|baseline)",
        r"split\(\" = \"\)",
        r"split\(\":\"",
        r"(starts|ends)with\(\"[^\"]*:[^\"]*\"\)",
        r"removeprefix\(\"(train|mark|score|make) ",
        # Messages and metric names.
        r"startswith\(\"(epoch|needs|hung|domain) ",
        r"(starts|ends)with\(\"_?(val|auc|map_correlation)",
    ],
)
def test_no_module_reads_text_made_for_people(pattern: str) -> None:
    found = [
        f"{file.relative_to(SOURCE)}:{number}"
        for file in SOURCE.rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found
