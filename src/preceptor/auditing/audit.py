"""Audit: what a few marks say about a trained model, by swapped images.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from preceptor.auditing.marked import Pictures, make_pictures, read_marked, read_scores
from preceptor.auditing.models import OpenedModel, open_model
from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import normalized
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import resample
from preceptor.data.swaps import Estimate, binary, editing_check, estimate, replicates
from preceptor.errors import InputError
from preceptor.metrics.auc import Array, log_odds, macro_auc
from preceptor.metrics.paired_tests import unit_codes
from preceptor.utils.text import interval, number, progress

Verdict = Literal["shown", "not shown", "too few marks"]
MOST = 200
"""Images of an audit, unless another number is given: two minutes of a ResNet-50 on two cores."""
SIDE = 224
"""Side of written images, in pixels, if no model says it."""
TABLES = (".csv", ".parquet")
"""Suffixes of tables of scores."""
WIDE = 0.1
"""Half width of the interval of `outside`, above which there are too few marks."""
_BATCH = 32
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
    most: int = MOST,
    seed: int = 0,
) -> Examined:
    """Audit a trained classifier by images with marks; nothing is trained.

    Args:
        model: Trained classifier, see `open_model`; or a table (CSV, Parquet) with the scores of
            the images that `write_images` wrote, in the columns path and `score_CLASS`.
        manifest: Manifest of the images.
        positive: Class whose probability is the score, for models that have none.
        splits, maps: Images and marks, see `read_marked`.
        input_size: Side of the input in pixels, for models that do not say it.
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
        opened = open_model(model, classes=classes, positive=positive, input_size=input_size)
    if opened is not None:
        form, classes, positive = opened.image_format, opened.classes, opened.positive
    marked = read_marked(table, form, classes, splits=splits, maps=maps, most=most, seed=seed)
    pictures = make_pictures(marked, form, classes, seed)
    looks = None
    if opened is not None:
        name, scores = opened.name, _scores(opened, pictures)
        with_marks = np.flatnonzero(marked.images.masks.any((1, 2)))
        looks = opened.maps(marked.images.pixels[with_marks], marked.images.labels[with_marks])
    else:
        name, scores = str(model), read_scores(Path(str(model)), pictures, classes)
    audit = _judged(name, classes, positive, pictures, scores, looks, seed, begun)
    return Examined(audit, pictures, scores)


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
    name: str,
    classes: tuple[str, ...],
    positive: str | None,
    pictures: Pictures,
    scores: dict[str, Array],
    looks: NDArray[np.float32] | None,
    seed: int,
    begun: float,
) -> Audit:
    images, table, swapped = pictures.marked.images, pictures.marked.table, pictures.swapped
    codes = unit_codes(table["group"], len(table))
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
        model=name,
        verdict=verdict,
        headline=_headline(verdict, more),
        sentences=_sentences(verdict, ordinary, then, outside, editing),
        classes=classes,
        positive=positive,
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


def _headline(verdict: Verdict, more: int) -> str:
    return {
        "shown": "Shown: what lies outside the marks decides",
        "not shown": "Not shown that what lies outside the marks decides",
        "too few marks": f"Too few marks: about {more:,} more",
    }[verdict]


def ranged(one: Estimate, *, sign: bool = False) -> str:
    """Estimate and interval as text."""
    return f"{number(one.value, sign=sign)} ({interval(one.low, one.high, sign=sign)})"


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
