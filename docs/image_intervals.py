"""Table of the differences that are shown for the test images of a study, and not for others."""

from __future__ import annotations

from typing import Any

from gallery_pages import EVIDENCE, STUDIES, table

from preceptor.report.cells import short
from preceptor.results import read
from preceptor.runtime.formatting import interval, number

QUESTIONS = ("RQ2", "control", "ceiling", "detector")
"""Comparisons of the Student with another row."""


def image_intervals() -> str:
    """A row for each difference whose interval over seeds and images, and no other, contains 0."""
    header = [
        "data", "Student minus", "mean", "interval over seeds",
        "interval over seeds and test images",
    ]  # fmt: skip
    return table(header, [line for study in STUDIES for line in _lines(study.title, study.folder)])


def _lines(title: str, folder: str) -> list[list[str]]:
    found = read(EVIDENCE / folder).comparisons
    found = found[found["question"].isin(QUESTIONS)]
    rows: list[Any] = found.to_dict("records")
    return [
        [
            title,
            short(one["key_b"]),
            number(one["mean"], sign=True),
            interval(one["low"], one["high"]),
            interval(one["image_low"], one["image_high"]),
        ]
        for one in rows
        if one["low"] * one["high"] > 0 and one["image_low"] * one["image_high"] < 0
    ]
