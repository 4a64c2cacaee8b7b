"""Typed values are handed on as such: no module reads them back out of text made for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "preceptor"


def lines_with(pattern: str) -> list[str]:
    """The lines of the package in which a pattern occurs."""
    return [
        f"{file.relative_to(SOURCE)}:{number}"
        for file in SOURCE.rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


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
    assert not lines_with(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"for key in \(\"(manifest|maps|alpha|distance|post|device)\"",
        r"\.pop\(\"(manifest|weights|maps|soft_labels|training|post|human_post|path)\"",
        r"\.get\(\"(manifest|store|weights|maps|domains|soft_labels)\"",
        r"\{\"recipe\", \"device\"",
    ],
)
def test_what_a_config_field_is_stands_in_its_type(pattern: str) -> None:
    """Which fields are paths, and which are no part of a run's id, is listed nowhere by name."""
    assert not lines_with(pattern)
