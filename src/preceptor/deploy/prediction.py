"""Predictions of a trained model, and its description, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import normalized, over_image
from preceptor.errors import InputError
from preceptor.metrics.operating_points import known_threshold

MapKind = Literal["cam", "gradcam", "none"]
INFO_KEY = "preceptor"
"""Key of the description of the model in the metadata of an exported file."""
DEFAULT_RULE = "eer"

CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Float = TypeVar("Float", bound=np.floating)


@checked_dataclass(frozen=True, config=CHECKED)
class Calibration:
    """Temperature T of a model, fitted on validation; `network.calibrated` applies it.

    With a positive class, its probability s becomes σ(logit(s) / T), and the other probabilities
    are scaled so that all add up to 1. Without one, all become softmax(logits / T).
    """

    temperature: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class ModelInfo:
    """Description of a trained model."""

    classes: tuple[str, ...]  # in the order of the probabilities
    positive: str | None  # class whose probability is the score; None = there is none
    image_format: ImageFormat
    mean: tuple[float, ...]  # mean and std of the input in [0, 1], one value per channel
    std: tuple[float, ...]
    backbone: str
    map_kind: MapKind  # none: an exported file returns no maps
    #: By rule, fixed on validation, of the calibrated score.
    thresholds: Mapping[str, float] = field(default_factory=dict)
    version: str = ""  # of the library that built the model
    calibration: Calibration | None = None

    @property
    def positive_index(self) -> int | None:
        """Index of the positive class; None if there is none."""
        return None if self.positive is None else self.classes.index(self.positive)

    def to_json(self) -> str:
        """JSON text in one line."""
        return _INFO.dump_json(self, exclude={"image_format": {"canvas"}}).decode()


_INFO = TypeAdapter(ModelInfo)


def find_threshold(threshold: str | float | None, info: ModelInfo) -> float | None:
    """Threshold of the score: of a rule (eer, fdr5%, fdr=0.05), or a number from 0 to 1.

    None is eer for models that have it. A result of None means that the decision is the most
    probable class.

    Example:
        >>> info = ModelInfo(("a", "b"), "b", ImageFormat(64), (0.5,) * 3, (0.5,) * 3, "net", "cam",
        ...                  {"eer": 0.4, "fdr=0.05": 0.7})
        >>> [find_threshold(each, info) for each in (None, "bpcer5%", "fdr=0.05", "0.25", 0.5)]
        [0.4, 0.7, 0.7, 0.25, 0.5]
    """
    if threshold is None:
        return info.thresholds.get(DEFAULT_RULE)
    if info.positive is None:
        raise InputError(
            f"threshold {threshold!r}: the model has no positive class; remove the threshold, and "
            "the decision is the most probable class"
        )
    try:
        number = float(threshold)
    except ValueError:
        return known_threshold(str(threshold), info.thresholds, "the model")
    if not 0 <= number <= 1:
        raise InputError(
            f"threshold {threshold!r}: a score is a probability; give a number from 0 to 1, or "
            "the name of a rule, such as fdr5%"
        )
    return number


class NetworkOutput(NamedTuple):
    """Output of a network for a batch; None = not computed, or not known to the network."""

    probabilities: NDArray[np.float32]  # (B, C)
    raw_map: NDArray[np.float32] | None  # (B, h, w), not normalized


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
    """

    info: ModelInfo
    class_probabilities: NDArray[np.float32]
    decision: str
    grid_map: NDArray[np.float32] | None
    map_class: str
    size: tuple[int, int]

    @property
    def score(self) -> float:
        """Probability of the positive class, or without one of the most probable class."""
        return float(scores_of(self.class_probabilities[None], self.info.positive_index)[0])

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each class."""
        return dict(zip(self.info.classes, self.class_probabilities.tolist(), strict=True))

    @property
    def raw_map(self) -> NDArray[np.float32]:
        """(h, w) decision map of `map_class` on the grid of the model, not normalized.

        Raises:
            InputError: There is no map.
        """
        if self.grid_map is None:
            raise InputError("the map was not computed; call the predictor with maps=True")
        return self.grid_map

    @property
    def map(self) -> NDArray[np.float32]:
        """(h, w) decision map in [0, 1] on the grid of the model."""
        return normalized(self.raw_map)

    def map_at_image(self) -> NDArray[np.float32]:
        """(height, width) decision map in [0, 1] over the image; 0 where the model does not see."""
        return over_image(self.map, self.info.image_format, self.size)


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """Predictions for several images, as a sequence and as arrays."""

    info: ModelInfo  # description of the model
    output: NetworkOutput  # output of the network
    sizes: NDArray[np.int64]  # (n, 2) width and height of the upright images in pixels
    threshold: float | None  # threshold of the decision; None = the most probable class
    map_classes: NDArray[np.int64]  # (n,) class of each map

    def __len__(self) -> int:
        return len(self.probabilities)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> Predictions: ...

    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        if isinstance(index, slice):
            output = (None if column is None else column[index] for column in self.output)
            return replace(
                self,
                output=NetworkOutput._make(output),
                sizes=self.sizes[index],
                map_classes=self.map_classes[index],
            )
        width, height = self.sizes[index].tolist()
        return Prediction(
            self.info,
            self.probabilities[index],
            self.decision[index],
            None if self.raw_map is None else self.raw_map[index],
            self.info.classes[self.map_classes[index]],
            (width, height),
        )

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(n, C) probabilities in the order of the classes."""
        return self.output.probabilities

    @property
    def raw_map(self) -> NDArray[np.float32] | None:
        """(n, h, w) decision maps, not normalized; None = none."""
        return self.output.raw_map

    @property
    def score(self) -> NDArray[np.float32]:
        """(n,) probability of the positive class, or without one of the most probable class."""
        return scores_of(self.probabilities, self.info.positive_index)

    @cached_property
    def decision(self) -> list[str]:
        """Class of each image; see `decide`."""
        indices = decide(self.probabilities, self.info.positive_index, self.threshold)
        return [self.info.classes[index] for index in indices]

    @property
    def map(self) -> list[NDArray[np.float32]]:
        """Decision map of each image in [0, 1], see `Prediction.map`."""
        return [one.map for one in self]


def joined(parts: Sequence[Predictions]) -> Predictions:
    """One sequence of the predictions of several batches of the same predictor, at least one."""
    maps = [part.raw_map for part in parts if part.raw_map is not None]
    probabilities = np.concatenate([part.probabilities for part in parts])
    return replace(
        parts[0],
        output=NetworkOutput(probabilities, np.concatenate(maps) if maps else None),
        sizes=np.concatenate([part.sizes for part in parts]),
        map_classes=np.concatenate([part.map_classes for part in parts]),
    )


def scores_of(probabilities: NDArray[Float], positive: int | None) -> NDArray[Float]:
    """(n,) probability of the positive class, or without one of the most probable class."""
    return probabilities.max(1) if positive is None else probabilities[:, positive]


def decide(
    probabilities: NDArray[np.float32], positive: int | None, threshold: float | None
) -> NDArray[np.int64]:
    """(n,) class of each image: the positive one at or above the threshold, else the best other.

    Without a threshold it is the most probable class.
    """
    if positive is None or threshold is None:
        return np.asarray(probabilities.argmax(1), np.int64)
    others = probabilities.copy()
    others[:, positive] = -1
    # As on validation, in float64: a threshold may lie between two neighboring float32 scores.
    above = probabilities[:, positive].astype(np.float64) >= threshold
    return np.where(above, positive, others.argmax(1)).astype(np.int64)
