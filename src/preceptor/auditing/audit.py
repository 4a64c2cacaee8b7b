"""Audit: what a few marks say about a trained model, by swapped images; its page.

With s_i the ordinary images and s_ij those with the inside of i on the outside of j (see
`data.swaps`), and AUC that of the positive class (macro-averaged one-vs-rest for more classes):

    drop    = AUC(s_i, class of i) − AUC(s_ij, class of i)
    outside = AUC(s_ij, class of j), which is 0.5 if the outside decides nothing

`outside` is a randomized experiment: the class of j is drawn independently of i, and all images are
edited alike. A drop alone proves little, since a model may be worse on edited images of any kind.
So an effect is *shown* if the 95 % intervals of both lie above their values without an effect. If
none is shown, and the interval of `outside` is wider than ± 0.1, there are *too few marks*: as many
more are needed as would narrow it to that. Else an effect is *not shown*, which is not the same as
that there is none: swaps see neither another domain nor a shortcut inside the marks. Intervals
resample insides and outsides (by group where there are groups).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from preceptor.auditing.models import Normalization, OpenedModel, open_model
from preceptor.config.settings import ImageFormat
from preceptor.data import swaps
from preceptor.data.checks import Findings, read_table
from preceptor.data.geometry import normalized
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import resample
from preceptor.data.swaps import Estimate, binary, editing_check, estimate, replicates
from preceptor.errors import InputError
from preceptor.maps.marked import Marked, read_marked, swap_marked
from preceptor.metrics.auc import Array, log_odds, macro_auc
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
from preceptor.utils.files import replacing
from preceptor.utils.results import digest, strict_json, write_atomically
from preceptor.utils.text import duration, interval, number, percent, progress

Verdict = Literal["shown", "not shown", "too few marks"]
MOST = 200  # images, unless another number is given: two minutes of a ResNet-50 on two cores
SIDE = 224  # of written images, in pixels, if no model says it
TABLES = (".csv", ".parquet")  # suffixes of tables of scores
WIDE = 0.1  # half width of the interval of `outside`, above which there are too few marks
_BATCH = 32
_HEADLINES: dict[Verdict, str] = {
    "shown": "Shown: what lies outside the marks decides",
    "not shown": "Not shown that what lies outside the marks decides",
    "too few marks": "Too few marks: about {:,} more",
}
_BLIND = (
    "Swapped images see no shortcut inside the marks and say nothing about images from elsewhere "
    "(another camera, hospital or place): test the model on such images."
)


@dataclass(frozen=True)
class Part:
    """Share of the images of a class or source whose most probable class is the label."""

    images: int
    ordinary: float
    swapped: float


@dataclass(frozen=True)
class Audit:
    """Audit of a model; AUCs with 95 % intervals."""

    model: str
    notes: tuple[str, ...]  # what was assumed about the model
    verdict: Verdict
    headline: str
    sentences: tuple[str, ...]
    classes: tuple[str, ...]
    positive: str | None
    splits: tuple[str, ...]
    images: int
    marked: int  # with marks; the others were examined and have nothing to mark
    more_marks: int  # further images to tell whether the outside decides; 0 = enough
    ordinary: Estimate
    swapped: Estimate
    drop: Estimate
    outside: Estimate  # AUC for the class of the outside on swapped images; 0.5 = no effect
    outside_only: Estimate
    inside_only: Estimate
    by_outside: dict[str, Estimate]  # `swapped` on outsides of one class
    by_class: dict[str, Part]
    by_source: dict[str, Part]
    map_inside: float  # share of the model's map inside the marks; NaN = it has no maps
    map_chance: float  # share of the image inside the marks
    editing: Estimate  # AUC of what the editing alone tells; 0.5 = nothing
    seconds: float


@dataclass(frozen=True)
class Examined:
    """Audit with the images and scores behind it, for the page."""

    audit: Audit
    pictures: Pictures
    scores: dict[str, Array]  # (m, C) probabilities by set of images


def audit(
    model: str | Path | nn.Module | OpenedModel,
    manifest: str | Path | Manifest,
    *,
    positive: str | None = None,
    splits: Sequence[str] | None = None,
    maps: Path | None = None,
    input_size: int | None = None,
    normalization: Normalization | None = None,
    most: int = MOST,
    seed: int = 0,
) -> Examined:
    """Audit a trained classifier by images with marks; nothing is trained.

    Args:
        model: Trained classifier, see `open_model`; or a table (CSV, Parquet) with the scores of
            the images that `write_images` wrote, in the columns path and `score_CLASS`.
        manifest: Manifest of the images.
        positive, input_size, normalization: See `open_model`.
        splits, maps: Images and marks, see `read_marked`.
        most: Largest number of images.
        seed: Seed of the draws.

    Raises:
        InputError: Nothing can be swapped, or the model or the table of scores does not fit.
    """
    begun = time.perf_counter()
    table = manifest
    if not isinstance(table, Manifest):
        table = Manifest.read(table, verify=False, need=())
    if len(table.classes) < 2:
        fix = "add examined images of another class"
        raise InputError(f"{table.source or 'the manifest'}: the images have one class; {fix}")
    opened, form, classes = None, ImageFormat(input_size or SIDE), tuple(table.classes)
    if isinstance(model, OpenedModel):
        opened = model
    elif isinstance(model, nn.Module) or Path(model).suffix.lower() not in TABLES:
        opened = open_model(
            model, classes=classes, positive=positive, input_size=input_size,
            normalization=normalization,
        )  # fmt: skip
    if opened is not None:
        form, classes, positive = opened.image_format, opened.classes, opened.positive
    marked = read_marked(table, form, classes, splits=splits, maps=maps, most=most, seed=seed)
    pictures = make_pictures(marked, form, classes, seed)
    looks, notes = None, tuple[str, ...]()
    if opened is not None:
        name, notes, scores = opened.name, opened.notes, _scores(opened, pictures)
        with_marks = np.flatnonzero(marked.images.masks.any((1, 2)))
        looks = opened.maps(marked.images.pixels[with_marks], marked.images.labels[with_marks])
    else:
        name, scores = str(model), read_scores(Path(str(model)), pictures, classes)
    known = {"model": name, "notes": notes, "classes": classes, "positive": positive}
    return Examined(_judged(known, pictures, scores, looks, seed, begun), pictures, scores)


def _scores(model: OpenedModel, pictures: Pictures) -> dict[str, Array]:
    found: dict[str, list[Array]] = {kind: [] for kind in pictures.sets}
    with progress() as bar:
        task = bar.add_task("scores", total=sum(map(len, pictures.sets.values())), note="")
        for kind, pixels in pictures.sets.items():
            for start in range(0, len(pixels), _BATCH):
                part = pixels[start : start + _BATCH]
                found[kind].append(model.probabilities(part))
                bar.advance(task, len(part))
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def _judged(
    known: dict[str, Any],
    pictures: Pictures,
    scores: dict[str, Array],
    looks: NDArray[np.float32] | None,
    seed: int,
    begun: float,
) -> Audit:
    images, table, swapped = pictures.marked.images, pictures.marked.table, pictures.swapped
    codes, classes = pictures.marked.units, known["classes"]
    odds = {kind: log_odds(values) for kind, values in scores.items()}
    units = np.stack([codes[swapped.inside], codes[swapped.outside]])

    def whole(kind: str) -> tuple[float, Array]:
        drawn = replicates(images.labels, odds[kind], codes, seed=seed)
        return macro_auc(images.labels, odds[kind]), drawn

    def on_swapped(labels: NDArray[np.int64], of: int | None = None) -> tuple[float, Array]:
        which = (swapped.outside_labels == of) | (of is None)
        chosen = labels[which], odds["swapped"][which]
        return macro_auc(*chosen), replicates(*chosen, *units[:, which], seed=seed)

    before, after = whole("ordinary"), on_swapped(swapped.labels)
    ordinary, then = estimate(*before), estimate(*after)
    drop = estimate(before[0] - after[0], before[1] - after[1])
    outside = estimate(*on_swapped(swapped.outside_labels))
    editing = editing_check(images, classes=len(classes), seed=seed)
    verdict, more = _verdict(drop, outside, len(images))
    marks = binary(images.masks)
    marks = marks[marks.any((1, 2))]
    inside, chance = _looked(looks, marks)
    given = np.unique(swapped.outside_labels).tolist()
    return Audit(
        **known,
        verdict=verdict,
        headline=_HEADLINES[verdict].format(more),
        sentences=_sentences(verdict, ordinary, then, outside, editing),
        splits=pictures.marked.splits,
        images=len(images),
        marked=len(marks),
        more_marks=more,
        ordinary=ordinary,
        swapped=then,
        drop=drop,
        outside=outside,
        outside_only=estimate(*whole("outside")),
        inside_only=estimate(*whole("inside")),
        by_outside={classes[of]: estimate(*on_swapped(swapped.labels, of)) for of in given},
        by_class=_parts(table["label"].to_numpy(object), pictures, scores),
        by_source=_parts(table["source"].to_numpy(object), pictures, scores),
        map_inside=inside,
        map_chance=chance,
        editing=editing,
        seconds=time.perf_counter() - begun,
    )


def _verdict(drop: Estimate, outside: Estimate, images: int) -> tuple[Verdict, int]:
    """Verdict, and the number of further images that it needs."""
    if outside.low > 0.5 and drop.low > 0:
        return "shown", 0
    half = (outside.high - outside.low) / 2
    if not half <= WIDE:
        # The width of an interval falls with the root of the number of images.
        more = images * ((half / WIDE) ** 2 - 1) if math.isfinite(half) else images
        return "too few marks", 10 * math.ceil(more / 10)
    return "not shown", 0


def _sentences(
    verdict: Verdict, ordinary: Estimate, swapped: Estimate, outside: Estimate, editing: Estimate
) -> tuple[str, ...]:
    said = [
        f"On swapped images the AUC for the class of the outside is {ranged(outside)}; it is 0.5 "
        f"if the outside decides nothing. The AUC for the label is {ranged(ordinary)} on ordinary "
        f"and {ranged(swapped)} on swapped images."
    ]
    if editing.low > 0.5:
        said.append(
            f"The outlines of the marks alone tell the class (AUC {ranged(editing)}): a part of "
            "the effect may come from filled outlines."
        )
    if not ordinary.low > 0.5:
        said.append("The model is not shown to be better than chance on ordinary images.")
    if verdict == "shown":
        said.append("The drop estimates the loss where the outside no longer goes with the label.")
    return (*said, _BLIND)


def _looked(looks: NDArray[np.float32] | None, marks: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean share of the maps, and of the area, inside the marks; NaN without maps."""
    if looks is None:
        return math.nan, math.nan
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(marks), 4)
    grid = (looks.shape[1], looks.shape[2])
    cells = resample(torch.from_numpy(marks.astype(np.float32)), unit, unit, grid).numpy()
    weight = normalized(looks)
    total = weight.sum((1, 2))
    shares = (weight * cells).sum((1, 2))[total > 0] / total[total > 0]
    return float(shares.mean()) if len(shares) else math.nan, float(cells.mean())


def _parts(
    names: NDArray[np.object_], pictures: Pictures, scores: dict[str, Array]
) -> dict[str, Part]:
    swapped, labels = pictures.swapped, pictures.marked.images.labels
    right = scores["ordinary"].argmax(1) == labels
    after = scores["swapped"].argmax(1) == swapped.labels
    found = {}
    for name in sorted(set(map(str, names)) - {""}):
        of = names == name
        shares = float(right[of].mean()), float(after[of[swapped.inside]].mean())
        found[name] = Part(int(of.sum()), *shares)
    return found


def ranged(one: Estimate, *, sign: bool = False) -> str:
    """Estimate and interval as text."""
    return f"{number(one.value, sign=sign)} ({interval(one.low, one.high, sign=sign)})"


SHOWN = 12  # images on the page, those that change most
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
    looks = "The model has no maps here."
    if not np.isnan(audit.map_inside):
        looks = (
            f"{percent(audit.map_inside)} of the model's decision maps lie inside the marks, which "
            f"cover {percent(audit.map_chance)} of the images with marks."
        )
    blocks: list[Block] = [_numbers(audit), Text(looks)]
    blocks += [_parts_table(of, parts) for of, parts in found.items() if parts]
    page = PlainPage(
        kind="audit",
        name="/".join(Path(audit.model).parts[-2:]),  # a run folder ends in "model"
        facts=[audit.model, *facts],
        headline=audit.headline,
        sentences=[*audit.sentences, *(f"Assumed: {note}." for note in audit.notes)],
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
    steps = {
        "shown": [
            "Look at the images that change most: what of the outside could tell the class?",
            "preceptor repair trains the last layer again on swapped training images.",
        ],
        "not shown": [
            "Check that the marks cover only what decides: a shortcut inside them is not seen."
        ],
        "too few marks": [
            f"Mark about {audit.more_marks:,} more images (preceptor label), and repeat the audit."
        ],
    }[audit.verdict]
    blind = "Test the model on images from elsewhere: swapped images say nothing about them."
    return [*steps, blind]


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


def _parts_table(of: str, parts: dict[str, Part]) -> Table:
    lines = []
    for name, one in parts.items():
        cells = f"{one.images:,}", percent(one.ordinary), percent(one.swapped)
        lines.append(Line(name, [Cell(text) for text in cells]))
    return Table(f"Named right, by {of}", of, ["images", "ordinary", "swapped"], lines)


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


TABLE = "images.csv"


@dataclass(frozen=True)
class Pictures:
    """Images about which a model is asked."""

    marked: Marked
    swapped: swaps.SwappedImages
    sets: dict[str, NDArray[np.uint8]]  # (m, H, W, C) ordinary, swapped, outside, inside
    key: str  # of the names of their files: it depends on all that determines them


def make_pictures(marked: Marked, form: ImageFormat, classes: Sequence[str], seed: int) -> Pictures:
    """Ordinary, swapped, outside-only and inside-only images."""
    images, swapped = marked.images, swap_marked(marked, len(classes), seed)
    sets = {
        "ordinary": images.pixels,
        "swapped": swapped.pixels,
        "outside": swaps.outside_only(images, seed=seed),
        "inside": swaps.inside_only(images, seed=seed),
    }
    names = marked.table["name"].tolist()
    key = digest([names, form.size, form.fit, form.channels, list(classes), seed])[:8]
    return Pictures(marked, swapped, sets, key)


def _files(pictures: Pictures) -> dict[str, list[str]]:
    return {
        kind: [f"{kind}-{pictures.key}-{at:05d}.png" for at in range(len(pixels))]
        for kind, pixels in pictures.sets.items()
    }


def write_pictures(pictures: Pictures, folder: Path) -> None:
    """Write the images as PNG with the table `images.csv`, a manifest for `preceptor predict`."""
    table, swapped, rows = pictures.marked.table, pictures.swapped, []
    files = _files(pictures)
    if folder.exists():
        raise InputError(f"{folder} exists already; name a new folder for the images")
    with replacing(folder) as partial:
        partial.mkdir()
        for kind, pixels in pictures.sets.items():
            for at, (file, one) in enumerate(zip(files[kind], pixels, strict=True)):
                Image.fromarray(one[..., 0] if one.shape[2] == 1 else one).save(partial / file)
                inside = int(swapped.inside[at]) if kind == "swapped" else at
                outside = int(swapped.outside[at]) if kind == "swapped" else at
                names = (str(table["name"][one]) for one in (inside, outside))
                rows.append((file, kind, *names, table["label"][inside], table["label"][outside]))
        columns = ["path", "kind", "inside", "outside", "label", "outside_label"]
        pd.DataFrame(rows, columns=columns).to_csv(partial / TABLE, index=False)


def read_scores(
    path: Path, pictures: Pictures, classes: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """(m, C) scores of each set from a table with the columns path and `score_CLASS`."""
    table = read_table(path, Findings(str(path)))
    columns = [f"score_{name}" for name in classes]
    if lacking := [name for name in ("path", *columns) if name not in table]:
        raise InputError(f"{path}: column {lacking[0]} is missing; add it (preceptor predict does)")
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if (wrong := ~np.isfinite(values).all(1)).any():
        first = table["path"].iloc[int(wrong.argmax())]
        raise InputError(
            f"{path}: {wrong.sum():,} of {len(values):,} images have a score that is no number, "
            f"the first is {first}; score them again"
        )
    places = {Path(str(name)).name: at for at, name in enumerate(table["path"])}
    found = {}
    for kind, files in _files(pictures).items():
        if missing := [file for file in files if file not in places]:
            raise InputError(
                f"{path}: {len(missing):,} of {len(files):,} {kind} images have no score, the "
                f"first is {missing[0]}; score all images of {TABLE}, and give this command the "
                "options that --write-images had"
            )
        found[kind] = values[[places[file] for file in files]]
    return found
