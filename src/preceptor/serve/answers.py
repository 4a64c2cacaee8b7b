"""From predictions to the answer of a request."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from preceptor.errors import InputError
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.prediction import Prediction, decide
from preceptor.predictor.reference import Unfamiliar
from preceptor.predictor.threshold import find_threshold
from preceptor.serve.api import (
    MapAnswer,
    MapForm,
    PredictAnswer,
    PredictionAnswer,
    UnfamiliarAnswer,
)
from preceptor.serve.uploads import Upload
from preceptor.web.refusal import RefusedError

LARGEST_MAPS = 2**20
"""Largest number of values of the maps of an answer that are written at the size of the images."""
_DIGITS = 6


@dataclass(frozen=True)
class Wish:
    """What a request asks for.

    Args:
        model: Name of the model.
        map: Form of the map.
        threshold: Threshold, or None.
    """

    model: str
    map: MapForm = "none"
    threshold: str | None = None


def check_wish(wish: Wish, info: ModelInfo) -> None:
    """Check that a model can do what a request asks for.

    Raises:
        RefusedError: There is no such threshold, or the model has no maps (422).
    """
    threshold_of(wish.threshold, info)
    if wish.map != "none" and info.map_kind == "none":
        raise RefusedError(422, f"the model {wish.model!r} has no maps; set map=none")


def threshold_of(wanted: str | None, info: ModelInfo) -> float | None:
    """Threshold of a request, or of the server.

    Raises:
        RefusedError: There is no such threshold (422).
    """
    try:
        return find_threshold(wanted, info)
    except InputError as error:
        raise RefusedError(422, str(error)) from error


def answer_of(
    wish: Wish, revision: str, uploads: Sequence[Upload], predictions: Sequence[Prediction]
) -> bytes:
    """JSON of the answer.

    Args:
        wish: What the request asks for.
        revision: Hash of the files of the model.
        uploads: Images, at least one.
        predictions: Prediction of each image.

    Raises:
        RefusedError: The maps are too large to be written as numbers (422).
    """
    threshold = threshold_of(wish.threshold, predictions[0].info)
    if wish.map == "image":
        _check_size([one.size for one in predictions])
    found = PredictAnswer(
        model=wish.model,
        revision=revision,
        threshold=threshold,
        predictions=[
            _prediction(upload.name, prediction, threshold, wish.map)
            for upload, prediction in zip(uploads, predictions, strict=True)
        ],
    )
    return found.model_dump_json().encode()


def _prediction(
    name: str, prediction: Prediction, threshold: float | None, form: MapForm
) -> PredictionAnswer:
    info, (width, height) = prediction.info, prediction.size
    (decision,) = decide(prediction.class_probabilities[None], info.positive_index, threshold)
    return PredictionAnswer(
        name=name,
        width=width,
        height=height,
        score=prediction.score,
        decision=info.classes[decision],
        probabilities=prediction.probabilities,
        map=_map(prediction, form),
        unfamiliar=_unfamiliar(prediction.unfamiliar),
    )


def _unfamiliar(found: Unfamiliar | None) -> UnfamiliarAnswer | None:
    if found is None:
        return None
    return UnfamiliarAnswer(
        flagged=bool(found), share=found.share, rate=found.rate, distance=found.distance
    )


def _check_size(sizes: Sequence[tuple[int, int]]) -> None:
    """Check that maps of the sizes of images can be written as numbers."""
    count = sum(width * height for width, height in sizes)
    if count > LARGEST_MAPS:
        raise RefusedError(
            422,
            f"maps of {count:,} values are too large, at most {LARGEST_MAPS:,} per request are "
            "written; set map=png",
        )


def _map(prediction: Prediction, form: MapForm) -> MapAnswer | None:
    if form == "none":
        return None
    values = prediction.map if form == "grid" else prediction.map_at_image()
    if form == "png":
        file = io.BytesIO()
        levels = np.rint(values * np.float32(255)).astype(np.uint8)
        Image.fromarray(levels).save(file, "PNG", compress_level=1)
        text = base64.b64encode(file.getvalue()).decode("ascii")
        return MapAnswer(of=prediction.map_class, form=form, values=None, png=text)
    rows = np.round(values.astype(np.float64), _DIGITS).tolist()
    return MapAnswer(of=prediction.map_class, form=form, values=rows, png=None)
