"""Page and files of an audit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from preceptor.auditing.audit import Audit, Examined, Part, ranged
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
    render_plain_page,
)
from preceptor.report.palette import data_uri
from preceptor.utils.results import strict_json, write_atomically
from preceptor.utils.text import duration, number, percent

SHOWN = 12
"""Images on the page, those that change most."""
_TONES = {"shown": "lost", "not shown": "", "too few marks": "mixed"}


def write_audit(examined: Examined, folder: Path) -> None:
    """Write `audit.json` and `audit.html` to a folder."""
    page = audit_page(examined)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "audit.json", strict_json(asdict(examined.audit)) + "\n")
    write_atomically(folder / "audit.html", page)


def audit_page(examined: Examined) -> str:
    """Page as HTML: verdict, numbers, the images that change most, what to do next."""
    audit = examined.audit
    facts = [
        f"{audit.images:,} images of {', '.join(audit.splits)}, {audit.marked:,} with marks",
        f"classes {', '.join(audit.classes)}",
        duration(audit.seconds),
    ]
    found = {"class": audit.by_class, "source": audit.by_source}
    blocks: list[Block] = [_numbers(audit), Text(_maps(audit))]
    blocks += [_parts(of, parts) for of, parts in found.items() if parts]
    page = PlainPage(
        kind="audit",
        name="/".join(Path(audit.model).parts[-2:]),  # a run folder ends in "model"
        facts=[audit.model, *facts],
        headline=audit.headline,
        sentences=[*audit.sentences],
        sections=[
            Section("numbers", "Numbers", "Numbers", blocks),
            Section("images", "Images", "The images that change most", _pictures(examined)),
            Section("next", "Next", "What to do next", [Text(one) for one in next_steps(audit)]),
        ],
        footer="Made by preceptor from marked images; nothing was trained.",
        tone=_TONES[audit.verdict],
    )
    return render_plain_page(page)


def next_steps(audit: Audit) -> list[str]:
    """What a user should do next, one sentence or two each."""
    blind = "Test the model on images from elsewhere: swapped images say nothing about them."
    return {
        "shown": [
            "Look at the images that change most: what of the outside could tell the class?",
            "preceptor repair trains the last layer again on swapped training images.",
            blind,
        ],
        "not shown": [
            "Check that the marks cover only what decides: a shortcut inside them is not seen.",
            blind,
        ],
        "too few marks": [
            f"Mark about {audit.more_marks:,} more images (preceptor label), and repeat the audit.",
            blind,
        ],
    }[audit.verdict]


def _numbers(audit: Audit) -> Table:
    rows = [
        ("Ordinary images", audit.ordinary, "label"),
        ("Swapped images", audit.swapped, "label"),
        *((f"Swapped, outside of {name}", one, "label") for name, one in audit.by_outside.items()),
        ("Drop, ordinary − swapped", audit.drop, "label; 0 without an effect"),
        ("Class of the outside, swapped", audit.outside, "outside; 0.5 without an effect"),
        ("Outside alone, marks filled", audit.outside_only, "label"),
        ("Inside alone, on a blurred mean", audit.inside_only, "label"),
        ("Editing alone, without a model", audit.editing, "label; 0.5 if it tells nothing"),
    ]
    lines = [
        Line(name, [Cell(ranged(one)), Cell(of)], strong=one in (audit.drop, audit.outside))
        for name, one, of in rows
    ]
    return Table("AUC with 95 % interval", "", ["AUC", "Remark"], lines)


def _parts(of: str, parts: dict[str, Part]) -> Table:
    lines = []
    for name, one in parts.items():
        cells = f"{one.images:,}", percent(one.ordinary), percent(one.swapped)
        lines.append(Line(name, [Cell(text) for text in cells]))
    return Table(f"Named right, by {of}", of, ["images", "ordinary", "swapped"], lines)


def _maps(audit: Audit) -> str:
    if np.isnan(audit.map_inside):
        return "The model has no maps here."
    return (
        f"{percent(audit.map_inside)} of the model's decision maps lie inside the marks, which "
        f"cover {percent(audit.map_chance)} of the images with marks."
    )


def _pictures(examined: Examined) -> list[Block]:
    """Pairs of an ordinary and a swapped image, by the fall of the probability of the label."""
    pictures, swapped = examined.pictures, examined.pictures.swapped
    table, classes = pictures.marked.table, examined.audit.classes
    before = examined.scores["ordinary"][swapped.inside, swapped.labels]
    after = examined.scores["swapped"][np.arange(len(swapped.labels)), swapped.labels]
    order = np.argsort(after - before, kind="stable")
    first = np.sort(np.unique(swapped.inside[order], return_index=True)[1])[:SHOWN]
    found = []
    for at in order[first].tolist():
        one, label = int(swapped.inside[at]), classes[swapped.labels[at]]
        pair = [pictures.sets["ordinary"][one], swapped.pixels[at]]
        gap = np.full((len(pair[0]), max(1, len(pair[0]) // 32), pair[0].shape[2]), 255, np.uint8)
        both = np.concatenate([pair[0], gap, pair[1]], 1)
        image = Image.fromarray(both[..., 0] if both.shape[2] == 1 else both)
        of = classes[swapped.outside_labels[at]]
        said = f"{label}: {number(before[at], 2)} → {number(after[at], 2)} on the outside of {of}"
        name = str(table["name"][one])
        about = f"{name}: ordinary and swapped"
        found.append(CaptionedPicture(data_uri(image, "JPEG", quality=85), about, said, name))
    text = (
        "Left the ordinary image, right the inside of its marks on another outside, with the "
        "probability of the label on both."
    )
    return [Text(text), PicturesBlock(found)]
