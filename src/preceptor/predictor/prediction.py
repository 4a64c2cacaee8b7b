"""Predictions for images: scores, decisions, probabilities and maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.predictor.map_values import normalised, over_image
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.network import NetworkOutput, joined_outputs
from preceptor.predictor.reference import Unfamiliar

At = Literal["grid", "image"]
Float = TypeVar("Float", bound=np.floating)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction for one image.

    Args:
        info: Description of the model.
        class_probabilities: (C,) float32 in the order of the classes.
        decision: Class by the threshold, or the most probable class; see `decide`.
        grid_map: (h, w) float32 decision map on the grid of the model, not normalized; None if
            the model has no maps or none was asked for.
        map_class: Class of the map.
        size: Width and height of the upright image in pixels.
        at: Size of `map`: that of the grid, or of the image.
        unfamiliar: How unfamiliar the image is, true if it is flagged; None if the model has no
            reference (`preceptor calibrate`).
        features: (p,) float32 features, averaged over the grid; None if the network has none.
    """

    info: ModelInfo
    class_probabilities: NDArray[np.float32]
    decision: str
    grid_map: NDArray[np.float32] | None
    map_class: str
    size: tuple[int, int]
    at: At = "grid"
    unfamiliar: Unfamiliar | None = None
    features: NDArray[np.float32] | None = None

    @property
    def score(self) -> float:
        """Probability of the positive class, or without one of the most probable class."""
        return float(scores_of(self.class_probabilities[None], self.info.positive_index)[0])

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each class."""
        values = self.class_probabilities.tolist()
        return dict(zip(self.info.classes, values, strict=True))

    @property
    def raw_map(self) -> NDArray[np.float32]:
        """(h, w) decision map of `map_class` on the grid of the model, not normalized.

        Raises:
            InputError: There is no map.
        """
        if self.grid_map is None:
            raise InputError(
                f"{self.info.backbone}: this model has no maps"
                if self.info.map_kind == "none"
                else "the map was not computed; call the predictor with maps=True"
            )
        return self.grid_map

    @property
    def map(self) -> NDArray[np.float32]:
        """Decision map in [0, 1], on the grid of the model or at the size of the image (`at`)."""
        return self.map_at_image() if self.at == "image" else normalised(self.raw_map)

    def map_at_image(self) -> NDArray[np.float32]:
        """(height, width) decision map in [0, 1] over the image; 0 where the model does not see."""
        return over_image(normalised(self.raw_map), self.info.image_format, self.size)


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """Predictions for several images, as a sequence and as arrays.

    Args:
        info: Description of the model.
        output: Output of the network.
        sizes: (n, 2) width and height of the upright images in pixels.
        threshold: Threshold of the decision; None = the most probable class.
        map_classes: (n,) class of each map.
        at: Size of `map`: that of the grid, or of the image.
    """

    info: ModelInfo
    output: NetworkOutput
    sizes: NDArray[np.int64]
    threshold: float | None
    map_classes: NDArray[np.int64]
    at: At = "grid"

    def __len__(self) -> int:
        return len(self.probabilities)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> Predictions: ...

    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        if isinstance(index, slice):
            return replace(
                self,
                output=NetworkOutput._make(
                    None if column is None else column[index] for column in self.output
                ),
                sizes=self.sizes[index],
                map_classes=self.map_classes[index],
            )
        maps, unfamiliar, features = self.raw_map, self.unfamiliar, self.output.features
        width, height = self.sizes[index].tolist()
        return Prediction(
            self.info,
            self.probabilities[index],
            self.decision[index],
            None if maps is None else maps[index],
            self.info.classes[self.map_classes[index]],
            (width, height),
            self.at,
            None if unfamiliar is None else unfamiliar[index],
            None if features is None else features[index],
        )

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(n, C) probabilities in the order of the classes."""
        return self.output.probabilities

    @property
    def raw_map(self) -> NDArray[np.float32] | None:
        """(n, h, w) decision maps, not normalized; None = none."""
        return self.output.raw_map

    @cached_property
    def unfamiliar(self) -> list[Unfamiliar] | None:
        """How unfamiliar each image is; None if the model has no reference."""
        distances, shares, rate = self.output.distances, self.output.shares, self.info.false_alarms
        if distances is None or shares is None or rate is None:
            return None
        return [
            Unfamiliar(share, rate, distance)
            for share, distance in zip(shares.tolist(), distances.tolist(), strict=True)
        ]

    @property
    def score(self) -> NDArray[np.float32]:
        """(n,) probability of the positive class, or without one of the most probable class."""
        return scores_of(self.probabilities, self.info.positive_index)

    @cached_property
    def decision(self) -> list[str]:
        """Class of each image; see `decide`."""
        found = decide(self.probabilities, self.info.positive_index, self.threshold)
        return [self.info.classes[index] for index in found]

    @property
    def map(self) -> list[NDArray[np.float32]]:
        """Decision map of each image in [0, 1], see `Prediction.map`."""
        return [one.map for one in self]


def joined(parts: Sequence[Predictions]) -> Predictions:
    """One sequence of the predictions of several batches of the same predictor, at least one."""
    return replace(
        parts[0],
        output=joined_outputs([part.output for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        map_classes=np.concatenate([part.map_classes for part in parts]),
    )


def scores_of(probabilities: NDArray[Float], positive: int | None) -> NDArray[Float]:
    """(n,) probability of the positive class, or without one of the most probable class.

    Args:
        probabilities: (n, C).
        positive: Index of the positive class, or None.
    """
    return probabilities.max(1) if positive is None else probabilities[:, positive]


def decide(
    probabilities: NDArray[np.float32], positive: int | None, threshold: float | None
) -> NDArray[np.int64]:
    """Class of each image.

    With a threshold, an image is of the positive class if its score is at or above it, and
    otherwise of the most probable other class. Without one, it is of the most probable class.

    Args:
        probabilities: (n, C).
        positive: Index of the positive class, or None.
        threshold: Threshold of the score, or None.

    Returns:
        (n,) indices of classes.

    Example:
        >>> decide(np.array([[0.6, 0.4], [0.9, 0.1]], np.float32), 1, 0.3).tolist()
        [1, 0]
    """
    if positive is None or threshold is None:
        return np.asarray(probabilities.argmax(1), np.int64)
    others = probabilities.copy()
    others[:, positive] = -1
    # As on validation, in float64: a threshold may lie between two neighboring float32 scores.
    above = probabilities[:, positive].astype(np.float64) >= threshold
    return np.where(above, positive, others.argmax(1)).astype(np.int64)
