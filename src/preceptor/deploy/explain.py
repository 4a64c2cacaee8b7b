"""Explanation of single decisions on one page: maps, deletion curves, similar training images."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from preceptor.data.images import ImageError, decode_image
from preceptor.data.manifest import Manifest
from preceptor.deploy.calibrate import Advance, observe
from preceptor.deploy.network import calibrated
from preceptor.deploy.prediction import ModelInfo, Prediction, normalized, over_image
from preceptor.deploy.predictor import Canvas, Predictor, canvas_of
from preceptor.errors import one_line, without_secrets
from preceptor.metrics.split_names import kind_of
from preceptor.models.guided_model import GuidedModel
from preceptor.report.blocks import (
    Block,
    CaptionedPicture,
    FigureBlock,
    PicturesBlock,
    PlainPage,
    Section,
    Text,
    render_plain_page,
)
from preceptor.report.figures import Curve, curves_figure, histogram
from preceptor.report.palette import laid_over
from preceptor.saliency.maps import correlation, deletion_curves
from preceptor.saliency.rise import rise
from preceptor.utils.text import fine_number, number, told_apart

StartTask = Callable[[str, int], Advance]
"""Function of a task's name and number of images that returns the function that advances it."""
TOLERANCE = 0.05
"""Error of a RISE map at which no further masks are added."""

_LONGEST = 480  # pixels of a picture's longer side
_SMALL = 200
_QUALITY = 85
# Colors of classes in the distribution of the score, in turn.
_CLASSES = ("baseline2", "baseline1", "ceiling", "shuffled", "mixed", "centre")


@dataclass(frozen=True)
class DeletionCurve:
    """Probability of the class of a map as its cells are removed, the most salient first.

    A map shows what the model uses if the area is far below the one of the reversed map: alone, it
    depends on how fast the probability falls for any map. Values are NaN for a constant map.
    """

    shares: NDArray[np.float64]  # (m,) share of the cells that are removed
    probabilities: NDArray[np.float64]  # (m,)
    reversed_probabilities: NDArray[np.float64]  # (m,) with the least salient cells first

    @property
    def area(self) -> float:
        """Area under the curve."""
        return float(np.trapezoid(self.probabilities, self.shares))

    @property
    def reversed_area(self) -> float:
        """Area under the curve of the reversed map."""
        return float(np.trapezoid(self.reversed_probabilities, self.shares))


class Distribution(NamedTuple):
    """(n,) scores of validation images, see `Prediction.score`, and (n,) class of each."""

    scores: NDArray[np.float64]
    labels: NDArray[np.object_]


class Neighbor(NamedTuple):
    """Training image, with the distance of its features, which are scaled to length 1."""

    path: str
    name: str
    label: str
    distance: float


@dataclass(frozen=True)
class Explanation:
    """Explanation of the decision for an image."""

    path: str  # file or location
    prediction: Prediction  # with the map of the decided class
    rise: NDArray[np.float32]  # (h, w) RISE map of the same class on the same grid
    rise_error: float  # estimated, 1 − correlation with the limit
    masks: int
    agreement: float  # correlation of both maps; NaN if one is constant
    cam_curve: DeletionCurve
    rise_curve: DeletionCurve
    neighbors: list[Neighbor]  # the nearest first

    @property
    def name(self) -> str:
        """Name of the image in titles: the last part of its path, without credentials."""
        return one_line(PurePath(without_secrets(self.path)).name)


@dataclass(frozen=True)
class Explained:
    """Explanations of several decisions of a model."""

    explanations: list[Explanation]
    distribution: Distribution | None  # scores of validation images; None = not known
    compared: int  # number of training images that were compared; 0 = none


def explain(
    predictor: Predictor,
    model: GuidedModel,
    paths: Sequence[Path | str],
    manifest: Manifest | None = None,
    *,
    max_masks: int = 1000,
    neighbors: int = 6,
    sample: int = 5000,
    start_task: StartTask = lambda name, total: lambda count: None,
) -> Explained:
    """Explain the decisions of a model for images, by maps of the decided classes."""
    predictions = [predictor(path) for path in paths]
    predictions = [
        first if first.map_class == first.decision else predictor(path, map_of=first.decision)
        for path, first in zip(paths, predictions, strict=True)
    ]
    near: list[list[Neighbor]] = [[] for _ in paths]
    distribution, compared = None, 0
    if manifest is not None:
        train = _sampled(manifest.train_split, sample)
        compared = len(train)
        if compared:
            advance = start_task("training images", compared)
            features = observe(predictor, train["path"], advance).output.features
            assert features is not None
            near = [_neighbors(one, train, features, neighbors) for one in predictions]
        valid = _sampled(manifest.table[kind_of(manifest.table["split"]) == "val"], sample)
        if len(valid):
            advance = start_task("validation images", len(valid))
            scores = observe(predictor, valid["path"], advance).score.astype(np.float64)
            distribution = Distribution(scores, valid["label"].to_numpy(object))
    advance = start_task("maps", len(paths))
    explanations = []
    for path, prediction, similar in zip(paths, predictions, near, strict=True):
        explanations.append(_explained(predictor, model, path, prediction, similar, max_masks))
        advance(1)
    return Explained(explanations, distribution, compared)


def _sampled(table: pd.DataFrame, size: int) -> pd.DataFrame:
    """Rows of a table, at most `size` of them, drawn at random and in their order."""
    if len(table) <= size:
        return table
    drawn = np.random.default_rng(0).choice(len(table), size, replace=False)
    return table.iloc[np.sort(drawn)]


def _explained(
    predictor: Predictor,
    model: GuidedModel,
    path: Path | str,
    prediction: Prediction,
    similar: list[Neighbor],
    max_masks: int,
) -> Explanation:
    info = predictor.info
    canvas = canvas_of(path, info.image_format)
    if not isinstance(canvas, Canvas):
        raise ImageError(canvas.source, canvas.reason)
    pixels = canvas.pixels
    image = model.preprocess(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].contiguous())
    wanted = torch.tensor([info.classes.index(prediction.map_class)])
    found = rise(model, image, wanted, max_masks=max_masks, tolerance=TOLERANCE)
    maps = {"cam": torch.from_numpy(prediction.raw_map)[None], "rise": found.maps}

    def logarithms(batch: Tensor) -> Tensor:
        """Logarithms of the probabilities as `predictor` has them."""
        probabilities: Tensor = model(batch)[0].float().softmax(1)
        if info.calibration is not None:
            probabilities = calibrated(probabilities, info.calibration, info.positive_index)
        return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()

    model.eval()
    curves = {}
    for name, one in maps.items():
        both = torch.cat([one, -one])
        shares, values = deletion_curves(
            logarithms, image.expand(2, -1, -1, -1), both, wanted.expand(2)
        )
        curves[name] = DeletionCurve(
            shares.numpy().astype(np.float64), *values.numpy().astype(np.float64)
        )
    return Explanation(
        path=str(path),
        prediction=prediction,
        rise=found.maps[0].numpy(),
        rise_error=float(found.error[0]),
        masks=int(found.masks_used[0]),
        agreement=float(correlation(maps["cam"], maps["rise"]).values[0]),
        cam_curve=curves["cam"],
        rise_curve=curves["rise"],
        neighbors=similar,
    )


def _neighbors(
    prediction: Prediction, train: pd.DataFrame, features: NDArray[np.float32], count: int
) -> list[Neighbor]:
    """Training images whose features are nearest, the nearest first."""
    assert prediction.features is not None
    own, others = (
        side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), np.finfo(float).tiny)
        for side in (prediction.features.astype(np.float64), features.astype(np.float64))
    )
    distances = np.sqrt(((others - own) ** 2).sum(1))
    nearest = np.argsort(distances, kind="stable")[:count]
    rows = train.iloc[nearest]
    columns = rows["path"], rows["name"], rows["label"], distances[nearest]
    return [
        Neighbor(str(path), without_secrets(str(name)), str(label), float(distance))
        for path, name, label, distance in zip(*columns, strict=True)
    ]


def explain_page(explained: Explained, info: ModelInfo, threshold: float | None, model: str) -> str:
    """Page as HTML of at least one explanation, by the name of the model and its threshold."""
    several = len(explained.explanations) > 1
    first = explained.explanations[0]
    sections = [
        _section(one, explained, info, threshold, place)
        for place, one in enumerate(explained.explanations, 1)
    ]
    decisions = [one.prediction.decision for one in explained.explanations]
    counts = ", ".join(f"{name}: {decisions.count(name):,}" for name in dict.fromkeys(decisions))
    page = PlainPage(
        name=f"{len(explained.explanations):,} images" if several else first.name,
        kind="explanation",
        facts=[
            model,
            f"{info.backbone}: {' or '.join(info.classes)}",
            *([f"{explained.compared:,} training images compared"] if explained.compared else []),
        ],
        headline=counts if several else _decision(first),
        sentences=[] if several else [_reason(first, info, threshold)],
        mood="",
        sections=sections,
        footer="Made by preceptor. Maps show where the evidence for a class is, not why.",
    )
    return render_plain_page(page)


def _decision(one: Explanation) -> str:
    return f"Decision: {one.prediction.decision}, score {fine_number(one.prediction.score)}"


def _reason(one: Explanation, info: ModelInfo, threshold: float | None) -> str:
    if info.positive is None or threshold is None:
        return "The decision is the most probable class."
    side = "at or above" if one.prediction.score >= threshold else "below"
    score, limit = told_apart(one.prediction.score, threshold)
    return (
        f"The score, {score}, is the probability of {info.positive}; it is {side} the "
        f"threshold {limit}."
    )


def _section(
    one: Explanation, explained: Explained, info: ModelInfo, threshold: float | None, place: int
) -> Section:
    of = one.prediction.map_class
    blocks: list[Block] = [
        Text(_decision(one)),
        Text(_reason(one, info, threshold)),
        Text(f"Maps of {of}", "heading"),
        *_map_blocks(one, info),
        Text("Score", "heading"),
        *_score_blocks(one, explained.distribution, info),
        Text(f"Deletion: probability of {of}", "heading"),
        *_deletion_blocks(one),
        Text("Similar training images", "heading"),
        *_similar_blocks(one, explained.compared),
    ]
    return Section(f"image-{place}", f"{place}", f"{place}: {one.name}", blocks)


def _map_blocks(one: Explanation, info: ModelInfo) -> list[Block]:
    pixels = _pixels(one.path, _LONGEST)
    size = pixels.shape[1], pixels.shape[0]
    prediction = one.prediction
    of = prediction.map_class
    kind = "exact class activation map" if info.map_kind == "cam" else "Grad-CAM"
    maps = {
        ("Decision map", f"evidence for {of}; {kind}"): prediction.raw_map,
        ("RISE", f"{one.masks:,} masks, error {number(one.rise_error, 2)}"): one.rise,
    }
    name = one.name
    pictures = [CaptionedPicture(_jpeg(pixels), f"{name}: image", "Image", name)]
    for (title, note), raw in maps.items():
        over = over_image(normalized(raw), info.image_format, size)
        picture = np.asarray(laid_over(pixels, over))
        pictures.append(
            CaptionedPicture(_jpeg(picture), f"{name}: {title} of {of}", f"{title}: {note}")
        )
    said = (
        f"Correlation of both maps: {number(one.agreement, 2)}. RISE is computed from the scores "
        "of masked images alone: where it agrees, the map shows what the score depends on."
    )
    if one.rise_error > TOLERANCE:
        said += (
            f" The RISE map has not settled: its error is above {TOLERANCE:g}, so that it may be "
            "noise. More masks (--masks) reduce the error if the score depends on the masks."
        )
    return [PicturesBlock(pictures, large=True), Text(said)]


def _score_blocks(
    one: Explanation,
    distribution: Distribution | None,
    info: ModelInfo,
) -> list[Block]:
    if distribution is None:
        text = "Scores of validation images are not known; give a manifest with --manifest."
        return [Text(text, "none")]
    score, (known, labels) = one.prediction.score, distribution
    groups, shares = {}, []
    for key, name in zip_longest(_CLASSES, info.classes):
        own = known[labels == name]
        if not len(own):
            continue
        shares.append(f"{100 * float((own >= score).mean()):.3g} % of {name}")
        if key is not None:
            groups[key] = (name, own)
    axis = "score" if info.positive is None else f"score: probability of {info.positive}"
    drawing = histogram(
        groups, "Scores of validation images by class", axis, span=(0, 1), mark=("image", score)
    )
    blocks: list[Block] = [
        Text(
            f"Validation images with a score of {fine_number(score)} or more: {', '.join(shares)} "
            f"({len(known):,} images)."
        )
    ]
    if drawing is not None:
        blocks.append(FigureBlock("score", [("", drawing)]))
        if len(info.classes) > len(_CLASSES):
            blocks.append(Text(f"The first {len(_CLASSES)} classes are drawn."))
    return blocks


def _deletion_blocks(one: Explanation) -> list[Block]:
    of, drawn, areas, said = one.prediction.map_class, [], [], []
    for key, name, curve in (
        ("student", "decision map", one.cam_curve),
        ("baseline1", "RISE", one.rise_curve),
    ):
        if np.isfinite(curve.area):
            drawn.append(Curve(name, key, curve.shares, curve.probabilities))
            said.append(f"{name} {number(curve.area, 2)}")
            areas.append(f"{said[-1]} ({number(curve.reversed_area, 2)})")
    text = (
        "The cells of a map are replaced by the mean color, the most salient first. The earlier "
        f"the probability of {of} falls, the more of it is where the map is high. For the whole "
        f"image it is {fine_number(one.prediction.probabilities[of])}. Area under the curve, and "
        "in brackets that of the reversed map, with the least salient cells first: "
        f"{', '.join(areas) or 'none, since the maps are constant'}. A map whose areas are alike "
        "does not show where the probability comes from."
    )
    title = f"Deletion curves. Areas: {', '.join(said) or 'none'}"
    axes = "share of removed cells", f"probability of {of}"
    figure = curves_figure(drawn, title, *axes, unit=(True, True))
    return [Text(text), FigureBlock("deletion", [("", figure)])]


def _similar_blocks(one: Explanation, compared: int) -> list[Block]:
    if not one.neighbors:
        text = "No training images were compared; give a manifest with --manifest."
        return [Text(text, "none")]
    pictures = [
        CaptionedPicture(
            _jpeg(_pixels(near.path, _SMALL)),
            f"{near.name}, {near.label}",
            f"{near.label}, distance {number(near.distance, 2)}",
            near.name,
        )
        for near in one.neighbors
    ]
    labels = [near.label for near in one.neighbors]
    same = labels.count(one.prediction.decision)
    text = (
        f"The nearest of {compared:,} training images by the distance of the features, scaled to "
        f"length 1; {same} of {len(labels)} are of the class {one.prediction.decision}."
    )
    return [Text(text), PicturesBlock(pictures)]


def _pixels(file: str, longest: int) -> NDArray[np.uint8]:
    image = Image.fromarray(decode_image(file, 3))
    image.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
