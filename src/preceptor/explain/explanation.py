"""Explanation of a decision: maps, deletion curves, and the most similar training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.calibration.observations import StartTask, observe, sampled
from preceptor.data.images import ImageError
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, one_line, without_secrets
from preceptor.evaluation.split_names import kind_of
from preceptor.models.guided_model import GuidedModel
from preceptor.predictor.inputs import Canvas, canvas_of
from preceptor.predictor.prediction import Prediction, scores_of
from preceptor.predictor.predictor import Predictor
from preceptor.saliency.agreement import correlation
from preceptor.saliency.deletion import deletion_curves
from preceptor.saliency.rise import rise

TOLERANCE = 0.05
"""Error of a RISE map at which no further masks are added."""


@dataclass(frozen=True)
class DeletionCurve:
    """Deletion curve of a map.

    Args:
        shares: (m,) share of the cells that are removed.
        probabilities: (m,) probability of the class of the map, when the most salient cells are
            removed first; NaN for a constant map.
        reversed_probabilities: (m,) the same when the least salient cells are removed first.
    """

    shares: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    reversed_probabilities: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve.

        An area far below `reversed_area` means that the map shows what the model uses. Alone it
        depends on how fast the probability falls for any map.
        """
        return float(np.trapezoid(self.probabilities, self.shares))

    @property
    def reversed_area(self) -> float:
        """Area under the curve of the reversed map."""
        return float(np.trapezoid(self.reversed_probabilities, self.shares))


@dataclass(frozen=True)
class Neighbor:
    """Training image with similar features.

    Args:
        path: File or location.
        name: Name as in the manifest.
        label: Class.
        distance: Distance of the features, see `Explained.measure`.
    """

    path: str
    name: str
    label: str
    distance: float


@dataclass(frozen=True)
class Explanation:
    """Explanation of the decision for an image.

    Args:
        path: File or location.
        prediction: Prediction with the map of the decided class.
        as_far: Numbers of validation images that are at least as far from the training images, and
            of all; None if the model has no reference.
        rise: (h, w) RISE map of the same class on the same grid.
        rise_error: Its estimated error, 1 − correlation with the limit.
        masks: Number of its masks.
        agreement: Correlation of both maps; NaN if one is constant.
        cam_curve, rise_curve: Deletion curves of both maps.
        neighbors: Most similar training images, the nearest first.
    """

    path: str
    prediction: Prediction
    as_far: tuple[int, int] | None
    rise: NDArray[np.float32]
    rise_error: float
    masks: int
    agreement: float
    cam_curve: DeletionCurve
    rise_curve: DeletionCurve
    neighbors: list[Neighbor]

    @property
    def is_settled(self) -> bool:
        """Whether the error of the RISE map is within the tolerance."""
        return self.rise_error <= TOLERANCE

    @property
    def name(self) -> str:
        """Name of the image in titles: the last part of its path, without credentials.

        What is not UTF-8 in it is escaped.
        """
        return one_line(PurePath(without_secrets(self.path)).name)


@dataclass(frozen=True)
class Distribution:
    """Scores of validation images.

    Args:
        scores: (n,) scores, see `Prediction.score`.
        labels: (n,) class of each image.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.object_]


@dataclass(frozen=True)
class Explained:
    """Explanations of several decisions of a model.

    Args:
        explanations: Explanations.
        distribution: Scores of validation images; None = not known.
        compared: Number of training images that were compared; 0 = none.
        measure: Distance by which training images are similar.
    """

    explanations: list[Explanation]
    distribution: Distribution | None
    compared: int
    measure: str


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
    """Explain the decisions of a model for images, by maps of the decided classes.

    Args:
        predictor: Predictor of the model.
        model: The same model.
        paths: Image files or locations.
        manifest: Manifest of its training and validation images; None = without similar images.
        max_masks: Largest number of RISE masks.
        neighbors: Number of similar images.
        sample: Largest number of training images that are compared, and of validation images.
        start_task: Called at the start of each pass over images.

    Raises:
        ImageError: An image cannot be read.
    """
    predictions = [_decided(predictor, path) for path in paths]
    near: list[list[Neighbor]] = [[] for _ in paths]
    measure, compared = "", 0
    if manifest is not None:
        train = sampled(manifest.train_split, sample)
        compared = len(train)
        if compared:
            advance = start_task("training images", compared)
            features = observe(predictor, train["path"], advance=advance).features
            near, measure = _neighbors(predictor, predictions, train, features, neighbors)
    advance = start_task("maps", len(paths))
    found = []
    for path, prediction, similar in zip(paths, predictions, near, strict=True):
        found.append(_explained(predictor, model, path, prediction, similar, max_masks))
        advance(1)
    distribution = _distribution(predictor, manifest, sample, start_task)
    return Explained(found, distribution, compared, measure)


def _decided(predictor: Predictor, path: Path | str) -> Prediction:
    """Prediction with the map of the class that was decided."""
    found = predictor(path)
    if found.map_class == found.decision:
        return found
    return predictor(path, map_of=found.decision)


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

    def calibrated(batch: Tensor) -> Tensor:
        """Logarithms of the probabilities as `predictor` has them."""
        probabilities: Tensor = model(batch)[0].float().softmax(1)
        if info.calibration is not None:
            values = info.calibration(probabilities.numpy(), info.positive_index)
            probabilities = torch.from_numpy(values)
        return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()

    model.eval()
    curves = {}
    for name, one in maps.items():
        both = torch.cat([one, -one])
        shares, values = deletion_curves(
            calibrated, image.expand(2, -1, -1, -1), both, wanted.expand(2)
        )
        curves[name] = DeletionCurve(
            shares.numpy().astype(np.float64), *values.numpy().astype(np.float64)
        )
    return Explanation(
        path=str(path),
        prediction=prediction,
        as_far=_as_far(predictor, prediction),
        rise=found.maps[0].numpy(),
        rise_error=float(found.error[0]),
        masks=int(found.masks_used[0]),
        agreement=float(correlation(maps["cam"], maps["rise"]).values[0]),
        cam_curve=curves["cam"],
        rise_curve=curves["rise"],
        neighbors=similar,
    )


def _as_far(predictor: Predictor, prediction: Prediction) -> tuple[int, int] | None:
    """Numbers of validation images at least as far from the training images, and of all."""
    reference, unfamiliar = predictor.reference, prediction.unfamiliar
    if reference is None or unfamiliar is None:
        return None
    return int((reference.distances >= unfamiliar.distance).sum()), len(reference.distances)


def _neighbors(
    predictor: Predictor,
    predictions: Sequence[Prediction],
    train: pd.DataFrame,
    features: NDArray[np.float32],
    count: int,
) -> tuple[list[list[Neighbor]], str]:
    """Nearest training images of each prediction, and the distance that was used."""
    reference = predictor.reference
    own = np.stack([_features_of(one) for one in predictions])
    if reference is not None and reference.gaussians is not None:
        measure = "Mahalanobis distance of the features"
        whitening = reference.gaussians.whitening.astype(np.float64).T
        first, second = (side.astype(np.float64) @ whitening for side in (own, features))
    else:
        measure = "distance of the features, scaled to length 1"
        first, second = (_unit(side.astype(np.float64)) for side in (own, features))
    found = []
    for one in first:
        distances = np.sqrt(((second - one) ** 2).sum(1))
        nearest = np.argsort(distances, kind="stable")[:count]
        rows = train.iloc[nearest]
        found.append(
            [
                Neighbor(str(path), without_secrets(str(name)), str(label), float(distance))
                for path, name, label, distance in zip(
                    rows["path"], rows["name"], rows["label"], distances[nearest], strict=True
                )
            ]
        )
    return found, measure


def _features_of(prediction: Prediction) -> NDArray[np.float32]:
    if prediction.features is None:
        raise InputError(f"{prediction.info.backbone}: this model returns no features")
    return prediction.features


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _distribution(
    predictor: Predictor, manifest: Manifest | None, sample: int, start_task: StartTask
) -> Distribution | None:
    """Scores of the reference, or of the validation images of the manifest."""
    classes = np.array(predictor.info.classes, object)
    if predictor.reference is not None:
        probabilities, labels = predictor.reference.probabilities, predictor.reference.labels
        named = classes[labels]
    else:
        if manifest is None:
            return None
        rows = manifest.table[kind_of(manifest.table["split"]) == "val"]
        if rows.empty:
            return None
        rows = sampled(rows, sample)
        advance = start_task("validation images", len(rows))
        probabilities = observe(predictor, rows["path"], advance=advance).probabilities
        named = rows["label"].to_numpy(object)
    scores = scores_of(probabilities, predictor.info.positive_index)
    return Distribution(scores.astype(np.float64), named)
