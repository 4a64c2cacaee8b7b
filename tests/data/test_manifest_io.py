"""Both parsers of CSV text give the same table."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preceptor.data import manifest_io
from preceptor.data.table import Findings, RawTable, read_csv
from preceptor.errors import ProblemsError

CELLS = st.text(st.sampled_from(list("ab1. éß\t,;\"'\x0b\x1c\x85\u2028\ufeff\r\n")), max_size=4)
LINES = st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), min_size=1, max_size=6)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def read_with(parser: bool, text: str, header: list[str] | None = None) -> RawTable | list[str]:
    """Table, or the problems; with or without the parser of text without quotation marks."""
    findings = Findings("the text")
    with pytest.MonkeyPatch.context() as patch:
        if not parser:
            patch.setattr(manifest_io, "_parse_plain", lambda *_: None)
        try:
            table = read_csv(text, findings, header)
        except ProblemsError as error:
            return [str(problem) for problem in error.problems]
    return table


@given(LINES, ENDS)
@example(["path,label", "a,b"], "\n")
@example(["path,label", " a,b"], "\n")
@example(["path,label", "a, b"], "\r\n")
@example(["path,label", "a,b", "", "c,d"], "\n")
@example(["path,label", "a,b,c"], "\n")
@example(["path,path", "a,b"], "\n")
@example(["path,label"], "\n")
@example(["path;label", "a;"], "\n")
@example(["\ufeffpath,label", "a,b"], "\n")
@example(["path", "a", "", "b"], "\n")
def test_the_plain_parser_is_the_other(lines: list[str], end: str) -> None:
    for text in (end.join(lines), end.join(lines) + end):
        plain, other = read_with(True, text), read_with(False, text)
        if isinstance(plain, RawTable) and isinstance(other, RawTable):
            assert plain.frame.equals(other.frame)
            assert list(plain.frame.columns) == list(other.frame.columns)
            assert plain.frame.dtypes.equals(other.frame.dtypes)
            assert plain.rows.tolist() == other.rows.tolist()
        else:
            assert plain == other


def test_a_text_without_quotation_marks_is_read_by_the_plain_parser() -> None:
    text = "path,label,split\r\na.png,x,train\r\nb c.png,,NA\r\n"
    for header in (None, ["one", "two", "three"]):
        plain, other = read_with(True, text, header), read_with(False, text, header)
        assert isinstance(plain, RawTable)
        assert isinstance(other, RawTable)
        assert plain.frame.equals(other.frame)
        assert plain.rows.tolist() == other.rows.tolist()
    assert manifest_io._parse_plain(text, ",", None) is not None
    for other_text in (text.replace("x", '"x"'), text.replace(",x", ", x"), "\n" + text):
        assert manifest_io._parse_plain(other_text, ",", None) is None
