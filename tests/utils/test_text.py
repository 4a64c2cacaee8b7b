from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from preceptor.utils.text import duration, interval, p_value, percent, print_table

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


def test_numbers_are_written_as_readers_expect() -> None:
    assert [percent(value) for value in (0.463, -0.05, float("-inf"))] == ["46%", "−5%", "−∞"]
    assert [duration(seconds) for seconds in (0.52, 30, 700, 7260)] == [
        "0.5 s",
        "30 s",
        "12 min",
        "2.0 h",
    ]
    assert [p_value(value) for value in (0.0317, 0.0004, float("nan"))] == ["0.032", "<0.001", "–"]
    assert interval(-0.0004, 0.00002) == "−0.0004 to +0.00002"
