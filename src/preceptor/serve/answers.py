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
from preceptor.predictor.threshold import find_threshold
from preceptor.serve.api import MapAnswer, MapForm, PredictAnswer, PredictionAnswer
from preceptor.serve.served_model import Answer
from preceptor.serve.uploads import Upload
from preceptor.web.refusal import RefusedError

LARGEST_MAP = 2**20
"""Largest number of values of a map that is written as numbers."""
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
    threshold_of(wish, info)
    if wish.map != "none" and info.map_kind == "none":
        raise RefusedError(422, f"the model {wish.model!r} has no maps; set map=none")


def threshold_of(wish: Wish, info: ModelInfo) -> float | None:
    """Threshold of a request.

    Raises:
        RefusedError: There is no such threshold (422).
    """
    try:
        return find_threshold(wish.threshold, info)
    except InputError as error:
        raise RefusedError(422, str(error)) from error


def answer_of(wish: Wish, uploads: Sequence[Upload], answers: Sequence[Answer]) -> bytes:
    """JSON of the answer.

    Args:
        wish: What the request asks for.
        uploads: Images, at least one.
        answers: Prediction of each image.

    Raises:
        RefusedError: A map is too large to be written as numbers (422).
    """
    threshold = threshold_of(wish, answers[0].prediction.info)
    found = PredictAnswer(
        model=wish.model,
        revision=answers[0].revision,
        threshold=threshold,
        predictions=[
            _prediction(upload, answer.prediction, threshold, wish.map)
            for upload, answer in zip(uploads, answers, strict=True)
        ],
    )
    return found.model_dump_json().encode()


def _prediction(
    upload: Upload, prediction: Prediction, threshold: float | None, form: MapForm
) -> PredictionAnswer:
    info, (width, height) = prediction.info, prediction.size
    (decision,) = decide(prediction.class_probabilities[None], info.positive_index, threshold)
    return PredictionAnswer(
        name=upload.name,
        width=width,
        height=height,
        score=prediction.score,
        decision=info.classes[decision],
        probabilities=prediction.probabilities,
        map=_map(upload, prediction, form),
    )


def _map(upload: Upload, prediction: Prediction, form: MapForm) -> MapAnswer | None:
    if form == "none":
        return None
    width, height = prediction.size
    if form == "image" and width * height > LARGEST_MAP:
        raise RefusedError(
            422,
            f"{upload.name}: a map of {width:,} × {height:,} values is too large; set map=png",
        )
    values = prediction.map if form == "grid" else prediction.map_at_image()
    if form == "png":
        file = io.BytesIO()
        levels = np.rint(values * np.float32(255)).astype(np.uint8)
        Image.fromarray(levels).save(file, "PNG", compress_level=1)
        text = base64.b64encode(file.getvalue()).decode("ascii")
        return MapAnswer(of=prediction.map_class, form=form, values=None, png=text)
    rows = np.round(values.astype(np.float64), _DIGITS).tolist()
    return MapAnswer(of=prediction.map_class, form=form, values=rows, png=None)
