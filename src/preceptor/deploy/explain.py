"""Explanation of single decisions on one page: the decision map, and RISE from scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.geometry import normalized, over_image
from preceptor.data.images import ImageError, decode_image
from preceptor.deploy.calibrate import Advance
from preceptor.deploy.prediction import ModelInfo, Prediction
from preceptor.deploy.predictor import Canvas, Predictor, canvas_of
from preceptor.errors import one_line, without_secrets
from preceptor.models.guided_model import GuidedModel
from preceptor.report.blocks import (
    Block,
    CaptionedPicture,
    PicturesBlock,
    PlainPage,
    Section,
    Text,
    render_plain_page,
)
from preceptor.report.palette import data_uri, laid_over
from preceptor.saliency.maps import correlation
from preceptor.saliency.rise import rise
from preceptor.utils.text import fine_number, number, threshold_text

TOLERANCE = 0.05
"""Error of a RISE map at which no further masks are added."""

_LONGEST = 480  # pixels of a picture's longer side
_QUALITY = 85


@dataclass(frozen=True)
class Explanation:
    """Explanation of the decision for an image."""

    path: str  # file or location
    prediction: Prediction  # with the map of the decided class
    rise: NDArray[np.float32]  # (h, w) RISE map of the same class on the same grid
    rise_error: float  # estimated, 1 − correlation with the limit
    masks: int
    agreement: float  # correlation of both maps; NaN if one is constant

    @property
    def name(self) -> str:
        """Name of the image in titles: the last part of its path, without credentials."""
        return one_line(PurePath(without_secrets(self.path)).name)


def explain(
    predictor: Predictor,
    model: GuidedModel,
    paths: Sequence[Path | str],
    *,
    max_masks: int = 1000,
    advance: Advance = lambda count: None,
) -> list[Explanation]:
    """Explain the decisions of a model for images, by maps of the decided classes."""
    for path in paths:  # of the last image too, before the maps of the first are made
        if not isinstance(canvas := canvas_of(path, predictor.info.image_format), Canvas):
            raise ImageError(canvas.source, canvas.reason)
    explained = []
    for path in paths:
        prediction = predictor(path)
        if prediction.map_class != prediction.decision:
            prediction = predictor(path, map_of=prediction.decision)
        explained.append(_explained(predictor, model, path, prediction, max_masks))
        advance(1)
    return explained


def _explained(
    predictor: Predictor,
    model: GuidedModel,
    path: Path | str,
    prediction: Prediction,
    max_masks: int,
) -> Explanation:
    info = predictor.info
    canvas = canvas_of(path, info.image_format)
    if not isinstance(canvas, Canvas):
        raise ImageError(canvas.source, canvas.reason)
    pixels = canvas.pixels
    image = model.preprocess(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].contiguous())
    wanted = torch.tensor([info.classes.index(prediction.map_class)])
    estimate = rise(model, image, wanted, max_masks=max_masks, tolerance=TOLERANCE)
    own = torch.from_numpy(prediction.raw_map)[None]
    return Explanation(
        path=str(path),
        prediction=prediction,
        rise=estimate.maps[0].numpy(),
        rise_error=float(estimate.error[0]),
        masks=int(estimate.masks_used[0]),
        agreement=float(correlation(own, estimate.maps).values[0]),
    )


def explain_page(
    explained: Sequence[Explanation], info: ModelInfo, threshold: float | None, model: str
) -> str:
    """Page as HTML of at least one explanation, by the name of the model and its threshold."""
    several, first = len(explained) > 1, explained[0]
    decisions = [one.prediction.decision for one in explained]
    counts = ", ".join(f"{name}: {decisions.count(name):,}" for name in dict.fromkeys(decisions))
    page = PlainPage(
        kind="explanation",
        name=f"{len(explained):,} images" if several else first.name,
        facts=[model, f"{info.backbone}: {' or '.join(info.classes)}"],
        headline=counts if several else _decision(first),
        sentences=[] if several else [_reason(first, info, threshold)],
        sections=[_section(one, info, threshold, at) for at, one in enumerate(explained, 1)],
        footer="Made by preceptor. Maps show where the evidence for a class is, not why.",
    )
    return render_plain_page(page)


def _decision(one: Explanation) -> str:
    return f"Decision: {one.prediction.decision}, score {fine_number(one.prediction.score)}"


def _reason(one: Explanation, info: ModelInfo, threshold: float | None) -> str:
    if info.positive is None or threshold is None:
        return "The decision is the most probable class."
    side = "at or above" if one.prediction.score >= threshold else "below"
    score, limit = fine_number(one.prediction.score), threshold_text(threshold)
    return (
        f"The score, {score}, is the probability of {info.positive}; it is {side} the "
        f"threshold {limit}."
    )


def _section(one: Explanation, info: ModelInfo, threshold: float | None, place: int) -> Section:
    of = one.prediction.map_class
    blocks: list[Block] = [
        Text(_decision(one)),
        Text(_reason(one, info, threshold)),
        Text(f"Maps of {of}", "heading"),
        *_map_blocks(one, info),
    ]
    return Section(f"image-{place}", f"{place}", f"{place}: {one.name}", blocks)


def _map_blocks(one: Explanation, info: ModelInfo) -> list[Block]:
    image = Image.fromarray(decode_image(one.path, 3))
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BILINEAR)
    pixels, as_uri = np.asarray(image), partial(data_uri, form="JPEG", quality=_QUALITY)
    prediction = one.prediction
    of = prediction.map_class
    kind = "exact class activation map" if info.map_kind == "cam" else "Grad-CAM"
    maps = {
        ("Decision map", f"evidence for {of}; {kind}"): prediction.raw_map,
        ("RISE", f"{one.masks:,} masks, error {number(one.rise_error, 2)}"): one.rise,
    }
    name = one.name
    pictures = [CaptionedPicture(as_uri(image), f"{name}: image", "Image", name)]
    for (title, note), raw in maps.items():
        over = over_image(normalized(raw), info.image_format, image.size)
        uri = as_uri(laid_over(pixels, over))
        pictures.append(CaptionedPicture(uri, f"{name}: {title} of {of}", f"{title}: {note}"))
    said = (
        f"Correlation of both maps: {number(one.agreement, 2)}. RISE is computed from the scores "
        "of masked images alone: where it agrees, the map shows what the score depends on."
    )
    if one.rise_error > TOLERANCE:
        said += (
            f" The RISE map has not settled: its error is above {TOLERANCE:g}, so that it may be "
            "noise. More masks (--masks) reduce the error if the score depends on the masks."
        )
    return [PicturesBlock(pictures), Text(said)]
