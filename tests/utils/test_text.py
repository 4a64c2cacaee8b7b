from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from preceptor.utils.text import duration, p_value, percent, print_table, told_apart

HEADER = ["set", "source", "images", "A − B", "95 % interval", ""]
LINES = [
    ["test-generator-number-3", "kind [0]", "10,000", "+0.125", "[-0.100, +0.100]", "a"],
    ["val", "画像 of another generator", "1", "–", "–", "b"],
]


def shown(width: int) -> str:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        print_table(HEADER, LINES, console, right={"images"})
        assert console.width == width
    return console.export_text()


@pytest.mark.parametrize("width", range(20, 130, 5))
def test_headings_and_numbers_are_whole_on_every_terminal(width: int) -> None:
    text = shown(width)
    assert "…" not in text
    for word in " ".join([*HEADER, "10,000", "+0.125", "[-0.100,", "+0.100]"]).split():
        assert word in text.split()


def test_numbers_between_words_are_whole() -> None:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=24, record=True, file=nowhere)
        cells = ["run 0.123456", "yes 98765.4321", "abcdefghijklmnopqrstuvw"]
        print_table(["n", "x", "name"], [cells], console)
    assert {"0.123456", "98765.4321"} <= {*console.export_text().split()}


def test_names_are_divided_where_that_makes_room() -> None:
    assert "test-generator-number-3" in shown(100).split()
    lines = shown(70).splitlines()
    assert max(map(len, lines)) <= 70
    assert "test-generator-number-3" not in shown(70).split()


def test_a_table_without_room_has_one_line_for_each_row() -> None:
    assert any("test-generator-number-3" in line and "+0.125" in line
               for line in shown(30).splitlines())  # fmt: skip


def test_numbers_are_written_as_readers_expect() -> None:
    assert [percent(value) for value in (0.463, -0.05, float("-inf"))] == ["46%", "−5%", "−∞"]
    assert [duration(seconds) for seconds in (0.52, 30, 700, 7260)] == [
        "0.5 s",
        "30 s",
        "12 min",
        "2.0 h",
    ]
    assert [p_value(value) for value in (0.0317, 0.0004, float("nan"))] == ["0.032", "<0.001", "–"]
    assert told_apart(0.5, 0.7) == ("0.500", "0.700")
    assert told_apart(0.999991, 0.9999914) == ("0.9999910", "0.9999914")
