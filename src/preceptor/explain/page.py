"""Page that explains decisions: maps, score, deletion curves and similar training images."""

from __future__ import annotations

import base64
import io
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.explain.explanation import (
    TOLERANCE,
    DeletionCurve,
    Distribution,
    Explained,
    Explanation,
)
from preceptor.predictor.map_values import normalised, over_image
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.overlay import laid_over
from preceptor.report.blocks import (
    Block,
    CaptionedPicture,
    FigureBlock,
    PicturesBlock,
    Section,
    Text,
)
from preceptor.report.histogram_figure import histogram
from preceptor.report.plain_page import PlainPage, render_plain_page
from preceptor.report.svg import (
    Figure,
    path,
    svg,
)
from preceptor.report.unit_axes import UnitAxes
from preceptor.runtime.formatting import fine_number, number, told_apart

_LONGEST = 480  # pixels of a picture's longer side
_SMALL = 200
_QUALITY = 85
# Colors of classes in the distribution of the score, in turn.
_CLASSES = ("baseline2", "baseline1", "ceiling", "shuffled", "mixed", "centre")
_CURVES = [("student", "decision map"), ("baseline1", "RISE")]


def explain_page(found: Explained, info: ModelInfo, threshold: float | None, model: str) -> str:
    """Page as HTML.

    Args:
        found: Explanations, at least one.
        info: Description of the model.
        threshold: Threshold of the decision; None = the most probable class.
        model: Name of the model.
    """
    several = len(found.explanations) > 1
    first = found.explanations[0]
    sections: list[Section] = []
    for place, one in enumerate(found.explanations, 1):
        sections += _sections(one, found, info, threshold, place if several else 0)
    page = PlainPage(
        name=f"{len(found.explanations):,} images" if several else first.name,
        kind="explanation",
        facts=[
            model,
            f"{info.backbone}: {' or '.join(info.classes)}",
            *([f"{found.compared:,} training images compared"] if found.compared else []),
        ],
        headline=_counts(found) if several else _decision(first),
        sentences=[] if several else _sentences(first, info, threshold),
        mood="ahead" if any(one.prediction.unfamiliar for one in found.explanations) else "",
        sections=sections,
        footer="Made by preceptor. Maps show where the evidence for a class is, not why.",
    )
    return render_plain_page(page)


def _counts(found: Explained) -> str:
    decisions = [one.prediction.decision for one in found.explanations]
    return ", ".join(f"{name}: {decisions.count(name):,}" for name in dict.fromkeys(decisions))


def _decision(one: Explanation) -> str:
    return f"Decision: {one.prediction.decision}, score {fine_number(one.prediction.score)}"


def _sentences(one: Explanation, info: ModelInfo, threshold: float | None) -> list[str]:
    prediction = one.prediction
    if info.positive is not None and threshold is not None:
        side = "at or above" if prediction.score >= threshold else "below"
        score, limit = told_apart(prediction.score, threshold)
        first = (
            f"The score, {score}, is the probability of {info.positive}; it is {side} the "
            f"threshold {limit}."
        )
    else:
        first = "The decision is the most probable class."
    unfamiliar = prediction.unfamiliar
    if unfamiliar is None or one.as_far is None:
        return [first]
    count, known = one.as_far
    flagged = "The image is unfamiliar: " if unfamiliar else "The image is not unfamiliar: "
    return [
        first,
        f"{flagged}{count:,} of {known:,} validation images are at least as far from the training "
        f"images. Its share, (k + 1) ÷ (n + 1) for k of n images, is "
        f"{100 * unfamiliar.share:.3g} %; {100 * unfamiliar.rate:.3g} % or less is flagged.",
    ]


def _sections(
    one: Explanation, found: Explained, info: ModelInfo, threshold: float | None, place: int
) -> list[Section]:
    """Sections of an image; with a place among several, one section."""
    prefix, of = f"image-{place}-" if place else "", one.prediction.map_class
    parts = [
        ("maps", "Maps", f"Maps of {of}", _map_blocks(one, info)),
        ("score", "Score", "Score", _score_blocks(one, found.distribution, info)),
        ("deletion", "Deletion", f"Deletion: probability of {of}", _deletion_blocks(one)),
        ("similar", "Similar images", "Similar training images", _similar_blocks(one, found)),
    ]
    if not place:
        return [Section(*part) for part in parts]
    told = [_decision(one), *_sentences(one, info, threshold)]
    blocks: list[Block] = [Text(text) for text in told]
    for _, _, title, inner in parts:
        blocks += [Text(title, "heading"), *inner]
    return [Section(f"{prefix}all", f"{place}", f"{place}: {one.name}", blocks)]


def _map_blocks(one: Explanation, info: ModelInfo) -> list[Block]:
    pixels = _pixels(one.path, _LONGEST)
    size = pixels.shape[1], pixels.shape[0]
    prediction = one.prediction
    of = prediction.map_class
    maps = {
        ("Decision map", f"evidence for {of}; {_kind(info)}"): prediction.raw_map,
        ("RISE", f"{one.masks:,} masks, error {number(one.rise_error, 2)}"): one.rise,
    }
    name = one.name
    pictures = [CaptionedPicture(_jpeg(pixels), f"{name}: image", "Image", name)]
    for (title, note), raw in maps.items():
        over = over_image(normalised(raw), info.image_format, size)
        picture = np.asarray(laid_over(pixels, over))
        pictures.append(
            CaptionedPicture(_jpeg(picture), f"{name}: {title} of {of}", f"{title}: {note}")
        )
    said = (
        f"Correlation of both maps: {number(one.agreement, 2)}. RISE is computed from the scores "
        "of masked images alone: where it agrees, the map shows what the score depends on."
    )
    if not one.is_settled:
        said += (
            f" The RISE map has not settled: its error is above {TOLERANCE:g}, so that it may be "
            "noise. More masks (--masks) reduce the error if the score depends on the masks."
        )
    return [PicturesBlock(pictures, large=True), Text(said)]


def _kind(info: ModelInfo) -> str:
    return "exact class activation map" if info.map_kind == "cam" else "Grad-CAM"


def _score_blocks(
    one: Explanation, distribution: Distribution | None, info: ModelInfo
) -> list[Block]:
    if distribution is None:
        text = (
            "Scores of validation images are not known; calibrate the model (preceptor calibrate) "
            "or give a manifest."
        )
        return [Text(text, "none")]
    score = one.prediction.score
    groups, shares, legend = {}, [], []
    for key, name in zip_longest(_CLASSES, info.classes):
        own = distribution.scores[distribution.labels == name]
        if not len(own):
            continue
        shares.append(f"{100 * float((own >= score).mean()):.3g} % of {name}")
        if key is not None:
            groups[key] = (name, own)
            legend.append((key, name))
    axis = "score" if info.positive is None else f"score: probability of {info.positive}"
    drawing = histogram(
        groups, "Scores of validation images by class", axis, span=(0, 1), mark=("image", score)
    )
    blocks: list[Block] = [
        Text(
            f"Validation images with a score of {fine_number(score)} or more: {', '.join(shares)} "
            f"({len(distribution.scores):,} images)."
        )
    ]
    if drawing is not None:
        blocks.append(FigureBlock("score", [("", drawing)], legend))
        if len(info.classes) > len(_CLASSES):
            blocks.append(Text(f"The first {len(_CLASSES)} classes are drawn."))
    return blocks


def _deletion_blocks(one: Explanation) -> list[Block]:
    curves = {"student": one.cam_curve, "baseline1": one.rise_curve}
    of = one.prediction.map_class
    areas = [
        f"{name} {number(curves[key].area, 2)} ({number(curves[key].reversed_area, 2)})"
        for key, name in _CURVES
        if np.isfinite(curves[key].area)
    ]
    text = (
        "The cells of a map are replaced by the mean color, the most salient first. The earlier "
        f"the probability of {of} falls, the more of it is where the map is high. For the whole "
        f"image it is {fine_number(one.prediction.probabilities[of])}. Area under the curve, and "
        "in brackets that of the reversed map, with the least salient cells first: "
        f"{', '.join(areas) or 'none, since the maps are constant'}. A map whose areas are alike "
        "does not show where the probability comes from."
    )
    return [Text(text), FigureBlock("deletion", [("", _deletion_plot(curves, of))], _CURVES)]


def _deletion_plot(curves: dict[str, DeletionCurve], of: str) -> Figure:
    axes = UnitAxes(54.0, 210.0)
    body = axes.grid()
    said = []
    for key, name in _CURVES:
        curve = curves[key]
        if not np.isfinite(curve.area):
            continue
        points = zip(curve.shares.tolist(), curve.probabilities.tolist(), strict=True)
        body.append(path([axes.at(*point) for point in points], key))
        said.append(f"{name} {number(curve.area, 2)}")
    body += axes.titles("share of removed cells", f"probability of {of}")
    return svg(axes.height, f"Deletion curves. Areas: {', '.join(said) or 'none'}", body)


def _similar_blocks(one: Explanation, found: Explained) -> list[Block]:
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
        f"The nearest of {found.compared:,} training images by the {found.measure}; {same} of "
        f"{len(labels)} are of the class {one.prediction.decision}."
    )
    return [Text(text), PicturesBlock(pictures)]


def _pixels(file: str, longest: int) -> NDArray[np.uint8]:
    """RGB pixels of a file, reduced to a length of the longer side."""
    image = Image.fromarray(decode_image(file, 3))
    image.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    """Data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
