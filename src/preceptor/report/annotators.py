"""Page on the agreement of annotators: tables, findings and images with everybody's outlines."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from preceptor.annotations.agreement import Agreement, AnnotatorMaps, disagreement_rule
from preceptor.annotations.shapes import outline
from preceptor.data.images import decode_image
from preceptor.errors import InputError, without_secrets
from preceptor.report.blocks import Cell, Line, Table, html_environment, names_of
from preceptor.report.palette import DARK
from preceptor.utils.files import replacing
from preceptor.utils.text import DASH, number

PAGE, PEOPLE, PAIRS, IMAGES = "agreement.html", "people.csv", "pairs.csv", "images.csv"
_LONGEST = 480  # pixels of the longer side of a picture
_COLORS = ("baseline1", "student", "ceiling", "centre", "distilled", "mixed", "shuffled", "bad")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")


def write_agreement(
    maps: AnnotatorMaps, agreement: Agreement, to: Path, shown: int = 24
) -> list[str]:
    """Write the page and its tables to a folder, which appears when it is complete."""
    to = to.absolute()
    if to.exists() and not (to.is_dir() and ((to / PAGE).is_file() or not any(to.iterdir()))):
        raise InputError(f"{to} exists already and is no result of data agreement; choose another")
    if not to.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    apart = agreement.people[agreement.people["disagrees_with_all"] == 1]
    findings = [
        f"{one.annotator} disagrees with all others: mean Dice {number(one.dice, 2)}, against "
        f"{number(one.dice_among_others, 2)} of the others among themselves."
        for one in _rows(apart)
    ] or ["No annotator stands out."]
    with replacing(to) as partial:
        partial.mkdir()
        page = _page(maps, agreement, findings, shown)
        (partial / PAGE).write_text(page, encoding="utf-8", newline="")
        images = agreement.images.rename(columns={"file": "name"})
        people = [" | ".join(sorted(maps.files[file])) for file in images["name"]]
        images.insert(1, "annotators", people)
        images["name"] = [_name(maps, file) for file in images["name"]]
        tables = {PEOPLE: agreement.people, PAIRS: agreement.pairs, IMAGES: images}
        for name, frame in tables.items():
            frame.to_csv(partial / name, index=False, float_format="%.6g")
    return findings


def _page(maps: AnnotatorMaps, agreement: Agreement, findings: list[str], shown: int) -> str:
    people = list(agreement.people["annotator"])
    strokes = {
        name: (DARK[_COLORS[place % len(_COLORS)]], _DASHES[place % len(_DASHES)])
        for place, name in enumerate(people)
    }
    images = agreement.images[agreement.images["all_empty"] == 0].head(shown)
    shared = len(agreement.images)
    every = max(maps.annotated, shared + agreement.single)
    context: dict[str, Any] = {
        "name": maps.folder.resolve().name,
        "facts": [
            f"{len(people)} annotators",
            f"{every:,} annotated images",
            f"{shared:,} of them ({shared / max(every, 1):.0%}) with two or more annotators",
        ],
        "kind": "ahead" if agreement.people["disagrees_with_all"].any() else "",
        "found": findings,
        "people": _people_table(agreement),
        "pairs": _pairs_table(agreement),
        "rule": disagreement_rule(),
        "pictures": [_picture(one, maps, strokes) for one in _rows(images)],
        "legend": [(name, _drawn("M4,10L44,10", *stroke)) for name, stroke in strokes.items()],
        "files": [
            (PEOPLE, "one row per annotator"),
            (PAIRS, "one row per pair of annotators"),
            (IMAGES, "one row per image with two or more annotators"),
        ],
        "links": {},
    }
    return html_environment().get_template("agreement.html.j2").render(context)


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    """Rows with their cells as attributes."""
    return frame.itertuples()


def _name(maps: AnnotatorMaps, file: str) -> str:
    return without_secrets(str(maps.table.loc[file, "name"]))


def _people_table(agreement: Agreement) -> Table:
    lines = [
        Line(
            one.annotator,
            [
                Cell(
                    f"{one.images:,}", f"{one.shared:,} shared" if one.shared < one.images else ""
                ),
                Cell(number(one.dice, 2), f"r {number(one.correlation, 2)}"),
                Cell(number(one.dice_among_others, 2)),
                Cell(
                    number(one.difference, 2, sign=True),
                    f"from {number(one.difference_low, 2, sign=True)}"
                    if math.isfinite(one.difference_low)
                    else "",
                ),
                Cell(f"{one.area_ratio:.2f} ×" if math.isfinite(one.area_ratio) else DASH),
                Cell("disagrees" if one.disagrees_with_all else ""),
            ],
            bool(one.disagrees_with_all),
        )
        for one in _rows(agreement.people)
    ]
    columns = ["Images", "Dice with others", "Dice among others", "Difference", "Marked area"]
    caption = (
        "Each annotator against the others. r: correlation with the others. Difference: Dice of "
        "the others among themselves minus Dice with this person, mean over images, and the lower "
        "end of its interval."
    )
    return Table(caption, "Annotator", [*columns, "Remark"], lines)


def _pairs_table(agreement: Agreement) -> Table:
    lines = [
        Line(
            f"{one.a} – {one.b}",
            [
                Cell(f"{one.images:,}", f"{one.both_empty:,} empty" if one.both_empty else ""),
                *(Cell(number(value, 2)) for value in (one.dice, one.iou, one.correlation)),
            ],
        )
        for one in _rows(agreement.pairs)
    ]
    caption = (
        "Pairs of annotators, means over the images that both looked at. Where both marked "
        "nothing (empty), Dice and IoU are undefined."
    )
    columns = ["Common images", "Dice", "IoU", "Correlation"]
    return Table(caption, "Pair", columns, lines, sortable=True)


def _picture(one: Any, maps: AnnotatorMaps, strokes: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Picture of an image with the outline of each person's marks, and words under it."""
    masks = {person: pixels >= 128 for person, pixels in maps.maps(one.file).items()}
    marked = [person for person, mask in masks.items() if mask.any()]
    empty = [person for person in masks if person not in marked]
    about = f"Dice {number(one.dice, 2)} · r {number(one.correlation, 2)}"
    if empty:
        about += f" · {names_of(empty)} marked nothing"
    pixels = Image.fromarray(decode_image(str(maps.table.loc[one.file, "path"]), 3))
    scale = min(1.0, _LONGEST / max(pixels.size))
    width, height = (max(1, round(side * scale)) for side in pixels.size)
    buffer = io.BytesIO()
    pixels.resize((width, height), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    lines = Markup("").join(
        _drawn(_path(masks[person], width, height), *strokes[person]) for person in marked
    )
    name = _name(maps, one.file)
    label = escape(f"{name}: outlines of {names_of(marked)}")
    drawing = Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}"/>'
        f"{lines}</svg>"
    )
    return {"name": name, "about": about, "drawing": drawing}


def _drawn(path: str, color: str, dash: str) -> Markup:
    """SVG elements of a path: bright on a dark casing, so that it is seen on any image."""
    same = 'fill="none" vector-effect="non-scaling-stroke" stroke-linejoin="round"'
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return Markup(
        f'<path d="{path}" {same} stroke="#000" stroke-opacity="0.65" stroke-width="4"/>'
        f'<path d="{path}" {same} stroke="{color}" stroke-width="2"{dashed}/>'
    )


def _path(mask: NDArray[np.bool_], width: int, height: int) -> str:
    """Outlines as the path of an SVG element of a size."""
    across, down = width / mask.shape[1], height / mask.shape[0]
    parts = []
    for rings in outline(mask):
        for ring in rings:
            points = " ".join(f"{x * across:.1f},{y * down:.1f}" for x, y in ring.tolist())
            parts.append(f"M{points}Z")
    return "".join(parts)
