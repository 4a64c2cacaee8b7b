"""Tables as files, CSV read back and LaTeX compiled; names of files."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.report.blocks import (
    Cell,
    Details,
    FigureBlock,
    Line,
    Section,
    Table,
    TableBlock,
    Text,
    exported,
    latex,
    slug,
    unique_names,
)
from preceptor.report.figures import Figure
from preceptor.report.palette import DARK, LIGHT
from tests.report.conftest import DOMAINS, NASTY, Written

MANY = "…–÷·→≤≥∞▲\u00a0éß \"quoted\" 'so' `so` [x] *y* <z> a--b , ; \\textbf{no}"


def nasty_table() -> Table:
    cells = [Cell(NASTY, MANY, best=True), Cell("−0.100", "α 0.5"), Cell()]
    lines = [
        Line(heading, cells)
        for heading in (NASTY, MANY, "[2pt]", "*", "", "α − β".replace("β", "b"))
    ]
    return Table(f"{NASTY} {MANY}", NASTY, ["AUC, %", NASTY, "x & y"], lines)


def test_csv_holds_what_the_table_shows() -> None:
    table = nasty_table()
    head, *rows = csv.reader(io.StringIO(table.csv))
    assert head == [NASTY, "AUC, %", NASTY, "x & y"]
    assert [row[0] for row in rows] == [line.heading for line in table.lines]
    for row in rows:
        assert row[1] == f"{NASTY} ({MANY})".replace("−", "-")
        assert float(row[2].split()[0]) == -0.1
        assert row[3] == "–"


def test_csv_files_of_a_report_are_whole(two_domains: Written) -> None:
    found = list((two_domains.out / "tables").glob("*.csv"))
    assert len(found) > 40
    said = Counter()
    for file in found:
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}
        said.update(
            name for name in (NASTY, "[kind] 2", "*kind 10") for row in rows if name in row[0]
        )
    assert min(said.values()) >= 2


def cells_of(line: str) -> int:
    """The columns of a row of LaTeX: ampersands that are no text."""
    return len(re.findall(r"(?<!\\)&", line)) + 1


def assert_even(text: str) -> None:
    """As many columns in every row as the table has."""
    columns = re.search(r"\\begin\{tabular\}\{(l[lr]*)\}", text)
    assert columns is not None
    inner = text.split("\\toprule")[1].split("\\bottomrule")[0]
    rows = [line for line in inner.splitlines() if line.endswith(r"\\")]
    assert len(rows) >= 2
    assert {cells_of(row) for row in rows} == {len(columns[1])}


def test_latex_has_as_many_cells_in_every_row(two_domains: Written) -> None:
    assert_even(nasty_table().latex("nasty"))
    for file in (two_domains.out / "tables").glob("*.tex"):
        assert_even(file.read_text(encoding="utf-8"))


def test_latex_says_every_sign_as_text() -> None:
    assert latex("a_b & 50% {x} #1 $y ~^\\") == (
        r"a\_b \& 50\% \{x\} \#1 \$y \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert latex("α ± − × ÷ · → ≤ ≥ ∞") == (
        r"$\alpha$ $\pm$ $-$ $\times$ $\div$ $\cdot$ $\rightarrow$ $\leq$ $\geq$ $\infty$"
    )
    assert latex("<b>|") == r"\textless{}b\textgreater{}\textbar{}"
    assert latex("a\u00a0b – … ▲c") == r"a~b -- \dots{} c"


@given(st.text("\\&%$#_{}~^<>|[]*−α±ax- "))
@settings(deadline=None)
def test_latex_leaves_no_sign_bare(text: str) -> None:
    bare = re.sub(r"\\[a-z]+\{\}|\\[&%$#_{}]|\$\\?[a-z-]+\$", "", latex(text))
    assert not set(bare) & set("\\&%$#_{}^<>|")


def test_every_name_of_the_palette_is_in_both_themes_and_on_the_page(two_domains: Written) -> None:
    assert list(LIGHT) == list(DARK)
    page = (two_domains.out / "report.html").read_text(encoding="utf-8")
    for name, color in [*LIGHT.items(), *DARK.items()]:
        assert f"--{name}: {color};" in page


def shown(name: str) -> TableBlock:
    return TableBlock(name, Table("", "", ["a"], [Line("b", [Cell("c")])]))


def drawn(name: str, *captions: str) -> FigureBlock:
    return FigureBlock(name, [(caption, Figure(caption, "<svg/>")) for caption in captions])


NAMES = st.lists(st.sampled_from(["a", "a-2", "a b", "A.B", "a-b", "b", "é", "*"]), max_size=9)


@given(NAMES, NAMES, st.lists(NAMES, max_size=3))
@settings(deadline=None)
def test_no_two_files_of_a_page_have_the_same_name(
    tables: list[str], folded: list[str], captions: list[list[str]]
) -> None:
    blocks = [
        Text("between"),
        *(shown(slug(name)) for name in tables),
        Details("more", [Text("in a fold"), *(shown(slug(name)) for name in folded)]),
        *(drawn("a", *some) for some in captions if some),
        *(drawn(slug(name), "") for name in tables),
    ]
    section = Section("key", "", "", unique_names(blocks))
    found = [f"{file.folder}/{file.name}" for file in exported([section])]
    assert len(found) == len(set(found))
    many = 2 * (len(tables) + len(folded)) + sum(map(len, captions)) + len(tables)
    assert len(found) == many
    assert [type(block) for block in section.blocks] == [type(block) for block in blocks]


def test_domains_whose_names_are_alike_have_files_of_their_own(two_domains: Written) -> None:
    assert slug(DOMAINS[0]) == slug(DOMAINS[1])
    for kind in ("tables", "figures"):
        names = Counter(
            re.sub(r"^squares-a-(2-)?", "", file.name)
            for file in (two_domains.out / kind).iterdir()
            if "unseen" not in file.name and not file.name.startswith("rq4")
        )
        assert set(names.values()) == {2}
    page = (two_domains.out / "report.html").read_text(encoding="utf-8")
    ids = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert set(ids.values()) == {1}
    assert {"squares-a-rq1", "squares-a-2-rq1"} <= set(ids)
