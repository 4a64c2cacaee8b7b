"""Page on the agreement of annotators: tables, findings and images with everybody's outlines."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import escape
from numpy.typing import NDArray
from PIL import Image

from preceptor.annotations.agreement import Agreement, AnnotatorMaps, disagreement_rule
from preceptor.annotations.shapes import outline
from preceptor.data.images import decode_image
from preceptor.errors import InputError, without_secrets
from preceptor.report.blocks import (
    Block,
    CaptionedPicture,
    Cell,
    Line,
    PicturesBlock,
    PlainPage,
    Section,
    Table,
    Text,
    names_of,
    render_plain_page,
)
from preceptor.report.palette import DARK
from preceptor.utils.files import replacing
from preceptor.utils.text import DASH, number

PAGE, PEOPLE, PAIRS, IMAGES = "agreement.html", "people.csv", "pairs.csv", "images.csv"
_LONGEST = 480  # pixels of the longer side of a picture
_COLORS = ("baseline1", "student", "ceiling", "centre", "distilled", "mixed", "shuffled", "bad")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
Strokes = dict[str, tuple[str, str]]
"""Color and dashes of each person's line."""


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
    against: list[Block] = [_people_table(agreement), Text(disagreement_rule())]
    pictures: list[Block] = [Text("No image has marks of two annotators.", "none")]
    if len(images):
        pictures = [
            PicturesBlock([_legend(strokes)]),
            PicturesBlock([_picture(row, maps, strokes) for row in _rows(images)], True),
        ]
    page = PlainPage(
        name=maps.folder.resolve().name,
        kind="agreement of annotators",
        facts=[
            f"{len(people)} annotators",
            f"{every:,} annotated images",
            f"{shared:,} of them ({shared / max(every, 1):.0%}) with two or more annotators",
        ],
        headline=findings[0],
        sentences=findings[1:],
        mood="ahead" if agreement.people["disagrees_with_all"].any() else "",
        sections=[
            Section("people", "Annotators", "Each annotator against the others", against),
            Section("pairs", "Pairs", "Pairs of annotators", [_pairs_table(agreement)]),
            Section("images", "Images", "Images with the least agreement", pictures),
        ],
        footer="Made by preceptor from the maps of single annotators.",
        files=[
            (PEOPLE, "one row per annotator"),
            (PAIRS, "one row per pair of annotators"),
            (IMAGES, "one row per image with two or more annotators"),
        ],
    )
    return render_plain_page(page)


def _rows(frame: pd.DataFrame) -> Any:
    """Rows with their cells as attributes."""
    return frame.itertuples()


def _name(maps: AnnotatorMaps, file: str) -> str:
    return without_secrets(str(maps.table.loc[file, "name"]))


def _people_table(agreement: Agreement) -> Table:
    lines = []
    for one in _rows(agreement.people):
        low = number(one.difference_low, 2, sign=True)
        cells = [
            Cell(f"{one.images:,}", f"{one.shared:,} shared" if one.shared < one.images else ""),
            Cell(number(one.dice, 2), f"r {number(one.correlation, 2)}"),
            Cell(number(one.dice_among_others, 2)),
            Cell(number(one.difference, 2, sign=True), "" if low == DASH else f"from {low}"),
            Cell(f"{number(one.area_ratio, 2)} ×"),
            Cell("disagrees" if one.disagrees_with_all else ""),
        ]
        lines.append(Line(one.annotator, cells, bool(one.disagrees_with_all)))
    columns = ["Images", "Dice with others", "Dice among others", "Difference", "Marked area"]
    caption = (
        "Each annotator against the others. r: correlation with the others. Difference: Dice of "
        "the others among themselves minus Dice with this person, mean over images, and the lower "
        "end of its interval."
    )
    return Table(caption, "Annotator", [*columns, "Remark"], lines)


def _pairs_table(agreement: Agreement) -> Table:
    lines = []
    for one in _rows(agreement.pairs):
        empty = f"{one.both_empty:,} empty" if one.both_empty else ""
        measures = [Cell(number(value, 2)) for value in (one.dice, one.iou, one.correlation)]
        lines.append(Line(f"{one.a} – {one.b}", [Cell(f"{one.images:,}", empty), *measures]))
    caption = (
        "Pairs of annotators, means over the images that both looked at. Where both marked "
        "nothing (empty), Dice and IoU are undefined."
    )
    columns = ["Common images", "Dice", "IoU", "Correlation"]
    return Table(caption, "Pair", columns, lines)


def _picture(one: Any, maps: AnnotatorMaps, strokes: Strokes) -> CaptionedPicture:
    """Picture of an image with the outline of each person's marks, and words under it."""
    masks = {person: pixels >= 128 for person, pixels in maps.maps(one.file).items()}
    marked = [person for person, mask in masks.items() if mask.any()]
    empty = [person for person in masks if person not in marked]
    about = f"Dice {number(one.dice, 2)} · r {number(one.correlation, 2)}"
    if empty:
        about += f" · {names_of(empty)} marked nothing"
    pixels = Image.fromarray(decode_image(str(maps.table.loc[one.file, "path"]), 3))
    pixels.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BILINEAR)
    width, height = pixels.size
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    image = f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}"/>'
    lines = (_drawn(_path(masks[person], width, height), *strokes[person]) for person in marked)
    name, uri = _name(maps, one.file), _svg(width, height, image + "".join(lines))
    return CaptionedPicture(uri, f"{name}: outlines of {names_of(marked)}", about, name)


def _legend(strokes: Strokes) -> CaptionedPicture:
    """Line of each person."""
    lines = "".join(
        f'<g transform="translate(0 {24 * place})">{_drawn("M8,14L60,14", *stroke)}'
        f'<text x="72" y="19" fill="#fff" font-family="sans-serif">{escape(name)}</text></g>'
        for place, (name, stroke) in enumerate(strokes.items())
    )
    uri = _svg(
        240, 24 * len(strokes) + 4, f'<rect width="100%" height="100%" fill="#2b2f36"/>{lines}'
    )
    return CaptionedPicture(uri, f"Lines of {names_of(strokes)}", "Line of each annotator")


def _svg(width: int, height: int, content: str) -> str:
    """Picture as a data URI."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
    return (
        f"data:image/svg+xml;base64,{base64.b64encode(f'{head}{content}</svg>'.encode()).decode()}"
    )


def _drawn(path: str, color: str, dash: str) -> str:
    """SVG elements of a path: bright on a dark casing, so that it is seen on any image."""
    same = f'<path d="{path}" fill="none" stroke-linejoin="round"'
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    casing = f'{same} stroke="#000" stroke-opacity="0.65" stroke-width="4"/>'
    return f'{casing}{same} stroke="{color}" stroke-width="2"{dashed}/>'


def _path(mask: NDArray[np.bool_], width: int, height: int) -> str:
    """Outlines as the path of an SVG element of a size."""
    across, down = width / mask.shape[1], height / mask.shape[0]
    parts = []
    for rings in outline(mask):
        for ring in rings:
            points = " ".join(f"{x * across:.1f},{y * down:.1f}" for x, y in ring.tolist())
            parts.append(f"M{points}Z")
    return "".join(parts)
