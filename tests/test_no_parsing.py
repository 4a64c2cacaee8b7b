"""Typed values are handed on as such: no module reads them back out of text made for people."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "preceptor"
# Files of other programs, whose formats are text and markup.
FOREIGN = ("annotations/",)


def modules() -> list[Path]:
    """All modules of the package, except the readers and writers of other programs' files."""
    files = SOURCE.rglob("*.py")
    return [one for one in files if not one.relative_to(SOURCE).as_posix().startswith(FOREIGN)]


@pytest.mark.parametrize(
    "pattern",
    [
        r"partition\(\" @ ",
        r"(starts|ends)with\(\"(variant|generation|student|teacher|baseline)",
        r"split\(\"( = |:)\"",
        r"(starts|ends)with\(\"[^\"]*:[^\"]*\"\)",
        r"removeprefix\(\"(train|mark|score|make) ",
        r"(starts|ends)with\(\"_?(val|auc|map_correlation|epoch |needs |hung |domain )",
    ],
)
def test_no_module_reads_text_made_for_people(pattern: str) -> None:
    for file in modules():
        assert not re.findall(f".*{pattern}.*", file.read_text(encoding="utf-8")), file


REPORT_TEXT = r"css|svg|html|viewBox|</?(figure|style|title)\b|\bvar\W+--|s-\{|data-name|:root"


def test_no_regular_expression_reads_the_page_its_styles_or_its_figures() -> None:
    """Patterns of `re` calls, and HTML or XML parsers, in any module."""
    found = []
    for file in modules():
        name = file.relative_to(SOURCE).as_posix()
        found += [f"{name}:{line}" for line in readers_of_markup(file.read_text(encoding="utf-8"))]
    assert not found


def readers_of_markup(source: str) -> list[int]:
    """The lines of a module that import a parser of markup or search the report's own text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(re.match(r"(html\.parser|xml|lxml|bs4)\b", name) for name in names):
                found.append(node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
            pattern = ast.unparse(node.args[0]) if node.args else ""
            found += [node.lineno] if re.search(REPORT_TEXT, pattern, re.IGNORECASE) else []
    return found
