"""Page on the agreement of annotators: tables, findings and images with everybody's outlines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from preceptor.data.annotators import AnnotatorMaps
from preceptor.errors import InputError, without_secrets
from preceptor.evaluation.annotators import (
    GAIN,
    SHIFT,
    Agreement,
    ImageAgreement,
    Person,
    disagreement_rule,
)
from preceptor.report.cells import Cell, Line, Table
from preceptor.report.html import html_environment
from preceptor.report.outline_pictures import Stroke, outlined, stroke
from preceptor.report.sentences import names_of
from preceptor.runtime.formatting import DASH, number
from preceptor.runtime.replace_file import replacing

PAGE, PEOPLE, PAIRS, IMAGES = "agreement.html", "people.csv", "pairs.csv", "images.csv"
SHOWN = 24
"""Largest number of images with pictures."""


@dataclass(frozen=True)
class _Picture:
    name: str
    about: str
    drawing: Markup


def write_agreement(
    maps: AnnotatorMaps, agreement: Agreement, cell: int, to: Path, shown: int = SHOWN
) -> list[str]:
    """Write the page and its tables to a folder, which appears when it is complete.

    Args:
        maps, agreement, cell: Maps and result of `agreement_of`.
        to: Folder; an earlier one of this kind is replaced.
        shown: Largest number of images with pictures.

    Returns:
        Findings, in sentences.

    Raises:
        InputError: The folder exists and holds something else.
    """
    to = to.absolute()
    if to.exists() and not (to.is_dir() and ((to / PAGE).is_file() or not any(to.iterdir()))):
        raise InputError(f"{to} exists already and is no result of data agreement; choose another")
    if not to.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    found = findings(agreement, cell)
    with replacing(to) as partial:
        partial.mkdir()
        (partial / PAGE).write_text(
            _page(maps, agreement, cell, found, shown), encoding="utf-8", newline=""
        )
        for name, frame in _frames(maps, agreement, cell).items():
            frame.to_csv(partial / name, index=False, float_format="%.6g")
    return found


def findings(agreement: Agreement, cell: int) -> list[str]:
    """Findings in sentences, the most important first.

    Args:
        agreement: Result of `agreement_of`.
        cell: Size in pixels of the cells in which displacements are measured.
    """
    sentences = []
    for one in agreement.people:
        if one.is_shifted:
            sentences.append(
                f"The marks of {one.name} lie {_displacement(one.dx * cell, one.dy * cell)} those "
                f"of the others; moved back, their correlation with the others rises by "
                f"{number(one.gain, 2)}."
            )
    for one in agreement.people:
        if one.disagrees:
            sentences.append(
                f"{one.name} disagrees with all others: mean Dice {number(one.dice, 2)}, against "
                f"{number(one.others, 2)} of the others among themselves."
            )
    if len(agreement.people) == 2:
        for pair in agreement.pairs:
            away = math.hypot(pair.dx, pair.dy)
            if away >= SHIFT and pair.shifted - pair.correlation >= GAIN:
                where = _displacement(pair.dx * cell, pair.dy * cell)
                sentences.append(
                    f"The marks of {pair.a} lie {where} those of {pair.b}; with two annotators it "
                    "is not known whose are displaced."
                )
    return sentences or ["No annotator stands out."]


def _displacement(dx: float, dy: float) -> str:
    """Displacement in words.

    Example:
        >>> _displacement(12.2, -5), _displacement(0.2, 3)
        ('12 px right of and 5 px above', '3 px below')
    """
    parts = []
    if abs(dx) >= 0.5:
        parts.append(f"{abs(dx):.0f} px {'right' if dx > 0 else 'left'} of")
    if abs(dy) >= 0.5:
        parts.append(f"{abs(dy):.0f} px {'below' if dy > 0 else 'above'}")
    return " and ".join(parts) or "at"


def _page(
    maps: AnnotatorMaps, agreement: Agreement, cell: int, found: list[str], shown: int
) -> str:
    strokes = {one.name: stroke(place) for place, one in enumerate(agreement.people)}
    least = [one for one in agreement.images if not one.empty][:shown]
    shared = len(agreement.images)
    every = max(maps.annotated, shared + agreement.single)
    odd = any(one.disagrees or one.is_shifted for one in agreement.people)
    context: dict[str, Any] = {
        "name": maps.folder.resolve().name,
        "facts": [
            f"{len(agreement.people)} annotators",
            f"{every:,} annotated images",
            f"{shared:,} of them ({shared / max(every, 1):.0%}) with two or more annotators",
        ],
        "kind": "ahead" if odd else "",
        "found": found,
        "people": _people_table(agreement, cell),
        "pairs": _pairs_table(agreement, cell),
        "rule": disagreement_rule(),
        "shift_rule": (
            "The displacement of a pair has the highest mean cross-correlation over images; from "
            "those of the pairs, the displacement of each person is estimated, with the median 0. "
            f"It is reported if it is {number(SHIFT * cell, 0)} px or more and undoing it "
            f"increases the mean correlation with the others by {GAIN:g} or more."
        ),
        "pictures": [_picture(one, maps, strokes) for one in least],
        "legend": [(name, one.draw("M4,10L44,10")) for name, one in strokes.items()],
        "files": [
            (PEOPLE, "one row per annotator"),
            (PAIRS, "one row per pair of annotators"),
            (IMAGES, "one row per image with two or more annotators"),
        ],
        "links": {},
    }
    return html_environment().get_template("agreement.html.j2").render(context)


def _picture(one: ImageAgreement, maps: AnnotatorMaps, strokes: dict[str, Stroke]) -> _Picture:
    row = maps.table.loc[one.name]
    masks = {person: map_ >= 128 for person, map_ in maps.maps(one.name).items()}
    name = without_secrets(str(row["name"]))
    marked = [person for person, mask in masks.items() if mask.any()]
    empty = [person for person, mask in masks.items() if not mask.any()]
    about = f"Dice {number(one.dice, 2)} · r {number(one.correlation, 2)}"
    if empty:
        about += f" · {names_of(empty)} marked nothing"
    label = f"{name}: outlines of {names_of(marked)}"
    return _Picture(name, about, outlined(str(row["path"]), masks, strokes, label))


def _people_table(agreement: Agreement, cell: int) -> Table:
    lines = [
        Line(
            one.name,
            [
                Cell(
                    f"{one.images:,}", f"{one.shared:,} shared" if one.shared < one.images else ""
                ),
                Cell(number(one.dice, 2), f"r {number(one.correlation, 2)}"),
                Cell(number(one.others, 2)),
                Cell(number(one.gap, 2, sign=True), _from(one.low)),
                Cell(f"{one.area:.2f} ×" if math.isfinite(one.area) else DASH),
                Cell(_step(one.dx * cell, one.dy * cell), _gain(one)),
                Cell(_remark(one)),
            ],
            one.disagrees or one.is_shifted,
        )
        for one in agreement.people
    ]
    columns = ["Images", "Dice with others", "Dice among others"]
    columns += ["Difference", "Marked area", "Displacement", "Remark"]
    caption = (
        "Each annotator against the others. r: correlation with the others. Difference: Dice of "
        "the others among themselves minus Dice with this person, mean over images, and the lower "
        "end of its interval."
    )
    return Table(caption, "Annotator", columns, lines)


def _pairs_table(agreement: Agreement, cell: int) -> Table:
    lines = [
        Line(
            f"{one.a} – {one.b}",
            [
                Cell(f"{one.images:,}", f"{one.empty:,} empty" if one.empty else ""),
                Cell(number(one.dice, 2)),
                Cell(number(one.iou, 2)),
                Cell(number(one.correlation, 2)),
                Cell(_step(one.dx * cell, one.dy * cell)),
                Cell(number(one.shifted, 2)),
            ],
        )
        for one in agreement.pairs
    ]
    columns = ["Common images", "Dice", "IoU", "Correlation", "Displacement"]
    columns.append("Correlation without it")
    caption = (
        "Pairs of annotators, means over the images that both looked at. Where both marked "
        "nothing (empty), Dice and IoU are undefined. Displacement: of the first against the "
        "second, right and down."
    )
    return Table(caption, "Pair", columns, lines, sortable=True)


def _step(dx: float, dy: float) -> str:
    if not math.isfinite(dx + dy):
        return DASH
    return f"{number(dx, 1, sign=True)}, {number(dy, 1, sign=True)} px"


def _gain(one: Person) -> str:
    return f"r {number(one.gain, 2, sign=True)}" if math.isfinite(one.gain) else ""


def _from(low: float) -> str:
    return f"from {number(low, 2, sign=True)}" if math.isfinite(low) else ""


def _remark(one: Person) -> str:
    parts = ["displaced"] if one.is_shifted else []
    return ", ".join([*parts, *(["disagrees"] if one.disagrees else [])])


def _frames(maps: AnnotatorMaps, agreement: Agreement, cell: int) -> dict[str, pd.DataFrame]:
    """Tables of the CSV files."""
    people = [
        {
            "annotator": one.name,
            "images": one.images,
            "shared": one.shared,
            "dice": one.dice,
            "iou": one.iou,
            "correlation": one.correlation,
            "dice_among_others": one.others,
            "difference": one.gap,
            "difference_low": one.low,
            "area_ratio": one.area,
            "dx_pixels": one.dx * cell,
            "dy_pixels": one.dy * cell,
            "correlation_gain": one.gain,
            "displaced": int(one.is_shifted),
            "disagrees_with_all": int(one.disagrees),
        }
        for one in agreement.people
    ]
    pairs = [
        {
            "a": one.a,
            "b": one.b,
            "images": one.images,
            "both_empty": one.empty,
            "dice": one.dice,
            "iou": one.iou,
            "correlation": one.correlation,
            "dx_pixels": one.dx * cell,
            "dy_pixels": one.dy * cell,
            "correlation_without_displacement": one.shifted,
        }
        for one in agreement.pairs
    ]
    images = [
        {
            "name": without_secrets(str(maps.table.loc[one.name, "name"])),
            "annotators": " | ".join(one.annotators),
            "dice": one.dice,
            "iou": one.iou,
            "correlation": one.correlation,
            "all_empty": int(one.empty),
        }
        for one in agreement.images
    ]
    columns = ["a", "b", "images", "both_empty", "dice", "iou", "correlation", "dx_pixels"]
    return {
        PEOPLE: pd.DataFrame(people),
        PAIRS: pd.DataFrame(pairs) if pairs else pd.DataFrame(columns=columns),
        IMAGES: pd.DataFrame(images) if images else pd.DataFrame(columns=["name", "dice"]),
    }
