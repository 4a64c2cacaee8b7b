"""Random mutations of a valid manifest, as CSV bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from random import Random

from tests.fuzz.configs import Case, spoiled

CELLS = (
    *"""
0|1|-1|2|0.5|-0.0|1e400|nan|NaN|inf|-inf|None|NA|null|true|False|yes|maybe|1,5|1_000|0x10|١|½
9223372036854775808|1e-400|train|Train|TRAIN|trainn|val|vall|val-|test|test-new|tést|plain
Plain|marked|0.png|./0.png|../data/0.png|../../../../../../etc/passwd|/etc/passwd|/dev/zero
/dev/null|/|.|..|~|~/0.png|${HOME}|http://example.org/0.png|maps|dir|empty.png|text.png
cut.png|loop.png|away.png|wide.png|0.PNG|größe|日本語|😀|'|a,b|a;b|<script>|[red]x[/red]|[/]|{}|%s
2020-01-01
""".strip()
    .replace("\n", "|")
    .split("|"),
    "",
    " ",
    "9" * 400,
    "val ",
    "valid ation",
    "test: 1",
    "PLAIN ",
    "C:\\0.png",
    "maps\\0.png",
    "0.png ",
    " 0.png",
    "a" * 300,
    "a/" * 3_000,
    "x" * 140_000,
    "\u202eabc",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "a\x1b[31mb",
    "a\x00b",
    "\ufeff",
    "\u2028",
    "a\x85b",
    '"',
    '""',
    "=cmd|' /C calc'!A0",
    "\\",
)
HEADERS = (
    *"""
path|label|split|Path|class|image|saliency|annotated|source|group|map_weight|sample_weight
annotation_seconds|name|0|unnamed|größe|index|[red]
""".strip()
    .replace("\n", "|")
    .split("|"),
    " label",
    "label ",
    "",
    " ",
    "a\nb",
    "x" * 5_000,
    "a\x1bb",
)
Rows = list[list[str]]


def cell(random: Random, rows: Rows) -> str:
    row, value = random.choice(rows[1:] or rows), random.choice(CELLS)
    if row:
        row[random.randrange(len(row))] = value
    return f"cell {value[:20]!r}"


def column(random: Random, rows: Rows) -> str:
    at, value = random.randrange(max(1, min(map(len, rows)))), random.choice(CELLS)
    for row in rows[1:]:
        row[at : at + 1] = [value]
    return f"column {at} all {value[:20]!r}"


def shuffled(random: Random, rows: Rows) -> str:
    at = random.randrange(max(1, min(map(len, rows))))
    values = [row[at] if at < len(row) else "" for row in rows[1:]]
    random.shuffle(values)
    for row, value in zip(rows[1:], values, strict=True):
        row[at : at + 1] = [value]
    return f"column {at} shuffled"


def header(random: Random, rows: Rows) -> str:
    value = random.choice(HEADERS)
    at = random.randrange(max(1, len(rows[0])))
    rows[0][at : at + 1] = [value]
    return f"header {value[:20]!r} at {at}"


def more(random: Random, rows: Rows) -> str:
    name, value = random.choice(HEADERS), random.choice(CELLS)
    rows[0].append(name)
    for row in rows[1:]:
        row.append(value)
    return f"more {name[:20]!r} of {value[:20]!r}"


def less(random: Random, rows: Rows) -> str:
    at = random.randrange(max(1, len(rows[0])))
    for row in rows:
        del row[at : at + 1]
    return f"without column {at}"


def ragged(random: Random, rows: Rows) -> str:
    row = random.choice(rows)
    if random.random() < 0.5:
        row.append("more")
    elif row:
        row.pop()
    return "ragged"


def row_wise(random: Random, rows: Rows) -> str:
    way = random.choice(("twice", "gone", "no header", "header again", "blank", "few", "none"))
    at = random.randrange(1, len(rows)) if len(rows) > 1 else 0
    if way == "twice":
        rows.insert(at, list(rows[at]))
    elif way == "blank":
        rows.insert(at, [])
    elif way == "header again":
        rows.insert(at, list(rows[0]))
    elif way == "no header":
        rows[:] = rows[1:] or rows
    else:
        left = {"gone": rows[:at] + rows[at + 1 :], "few": rows[: at + 1], "none": rows[:1]}
        rows[:] = left[way] or rows
    return f"row {at} {way}"


# Repeated changes are drawn more often.
CHANGES: tuple[Callable[[Random, Rows], str], ...] = (
    *[cell] * 5,
    *[column] * 2,
    shuffled,
    header,
    *[more] * 2,
    less,
    ragged,
    row_wise,
)


def _changed(random: Random, rows: Rows) -> tuple[Rows, list[str]]:
    rows = [list(row) for row in rows]
    count = 1 if random.random() < 0.6 else random.randint(2, 5)
    return rows, [random.choice(CHANGES)(random, rows) for _ in range(count)]


FILES: dict[str, Callable[[], bytes]] = {
    "JSON": lambda: b'[{"path": "0.png", "label": "plain", "split": "train"}]',
    "a workbook": lambda: b"PK\x03\x04 and more",
    "a picture": lambda: b"\x89PNG\r\n\x1a\n and more",
    "nothing of Parquet": lambda: b"PAR1",
}


def mutated_csv(random: Random, rows: Rows) -> Case:
    """A manifest in CSV with a change or several of its cells or its bytes."""
    rows, told = _changed(random, rows)
    delimiter = random.choice((",", ",", ",", ";", "\t", "|", " "))
    quoting = random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)
    data = out.getvalue().encode("utf-8", "surrogatepass")
    if random.random() < 0.25:
        what, data = spoiled(random, data, **FILES)
        told.append(what)
    return Case(f"CSV {delimiter!r}: " + "; ".join(told), data, frozenset())
