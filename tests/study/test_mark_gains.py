"""What a plan says of the marks of the data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from preceptor.data.manifest import Manifest
from preceptor.data.notes import MarkPlaces
from preceptor.errors import InputError
from preceptor.results import read
from preceptor.results.ladder import ANY_MAP
from preceptor.study.mark_gains import MEASURED, MeasuredGain, describe_marks, marks_of_training
from tests.datasets import squares
from tests.documents import ROOT

EVIDENCE = ROOT / "benchmarks" / "evidence"


@pytest.mark.parametrize("one", MEASURED, ids=lambda one: one.archive)
def test_the_gains_are_those_of_the_archives(one: MeasuredGain) -> None:
    tables = read(EVIDENCE / one.archive)
    rows = tables.comparisons[tables.comparisons["question"] == "control"]
    if "key_b" in rows:  # else only shuffled and centre
        rows = rows[rows["key_b"].isin(ANY_MAP)]
    (row,) = rows.nsmallest(1, "mean").to_dict("records")
    found = (row["mean"], row["low"], row["high"], row["n"])
    assert (one.gain, one.low, one.high, one.repeats) == pytest.approx(found, abs=6e-5)


@pytest.mark.parametrize("one", MEASURED, ids=lambda one: one.archive)
def test_the_marks_are_those_that_the_benchmark_found(one: MeasuredGain) -> None:
    table = pd.read_csv(EVIDENCE / "mark_places" / "marks.csv").set_index("data")
    row = table.loc[one.data]
    assert (one.marks.area, one.marks.overlap) == pytest.approx(
        (row["area"], row["overlap"]), abs=5e-4
    )


def test_all_comparable_data_are_named_the_nearest_first() -> None:
    for one in MEASURED:
        lines = describe_marks(replace(one.marks, count=7))
        assert lines[0].startswith("marks of 7 training images: median area ")
        assert lines[1].endswith("on data with comparable marks:")
        assert "do not predict a gain" in lines[-1]
        same = [other for other in MEASURED if other.marks == one.marks]
        for line, other in zip(lines[2 : 2 + len(same)], same, strict=True):
            assert f": {other.data} (" in line
            assert line.endswith(f"; {other.condition})")


def test_nulls_are_named_beside_gains() -> None:
    """Marks of 3 % that overlap by 9 %: boards are nearest, but not alone."""
    lines = describe_marks(MarkPlaces(0.03, 0.09, 30))
    assert [line.partition(": ")[2].partition(" (")[0] for line in lines[2:-1]] == [
        "circuit boards",
        "brain MRI with a planted stamp",
        "brain MRI",
        "brain MRI",
        "small forged regions",
        "small forged regions",
    ]
    assert "random weights" in lines[4]
    assert "ImageNet weights" in lines[5]


def test_data_unlike_all_measured_ones_are_said_to_be() -> None:
    lines = describe_marks(MarkPlaces(1e-4, 0.0, 30))
    assert lines[1] == (
        "Student minus the strongest control on data with the nearest marks, which differ in area "
        "or overlap by a factor of 1017:"
    )
    assert len(lines) == 4


def test_data_that_differ_by_less_in_area_and_in_overlap_are_not_said_to_be_unlike() -> None:
    """Twice and a half of both is less than three times of either."""
    largest = max((one.marks for one in MEASURED), key=lambda one: one.area)
    lines = describe_marks(MarkPlaces(largest.area * 2.5, largest.overlap / 2.5, 30))
    assert not any("differ" in line for line in lines)


def test_the_tutorial_shows_the_lines_of_today() -> None:
    page = (ROOT / "docs" / "tutorials" / "first-study.md").read_text(encoding="utf-8")
    assert "\n".join(describe_marks(MarkPlaces(0.14, 0.5, 24))) in page


def test_a_damaged_map_is_refused_with_its_file_reason_and_remedy(tmp_path: Path) -> None:
    manifest = Manifest.read(squares(tmp_path), verify=False)
    assert marks_of_training(manifest) is not None
    damaged = next(one for one in manifest.table["saliency"] if one)
    Path(damaged).write_bytes(b"no image")
    with pytest.raises(InputError) as found:
        marks_of_training(manifest)
    assert re.fullmatch(
        rf"{re.escape(damaged)}: [^;]+; replace the file or empty its cell in saliency",
        str(found.value),
    )
