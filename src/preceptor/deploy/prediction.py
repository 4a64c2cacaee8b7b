"""Predictions for images: scores, decisions, probabilities and maps, as arrays without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import fit_box
from preceptor.deploy.model_info import ModelInfo
from preceptor.errors import InputError

At = Literal["grid", "image"]
Float = TypeVar("Float", bound=np.floating)

BATCH_SIZES = (8, 16, 32, 64)
"""Batch sizes that are tried on a CPU."""
GPU_BATCH_SIZES = (32, 64, 128, 256)
"""Batch sizes that are tried on a GPU."""
# A larger batch needs more memory and delays the first result: it must be faster by this factor.
_GAIN = 1.05
# A probe ends after a batch that took this long, in seconds.
_LONG = 1.0
# As in `saliency.normalize`, which explains them and needs torch.
CONSTANT_TOLERANCE, LEAST_SPREAD = 1e-5, 1e-30


class NetworkOutput(NamedTuple):
    """Output of a network for a batch.

    Args:
        probabilities: (B, C) float32.
        raw_map: (B, h, w) float32 decision maps, not normalized; None = not computed.
        features: (B, p) float32 features, averaged over the grid; None = the network has none.
        energies: (B,) float32 minus the log-sum-exp of the logits; None = likewise.
        distances: (B,) float64 distance from the training images; None = the model has no
            reference.
        shares: (B,) float64 share of the validation images that are at least as far, see
            `Unfamiliar`; None = likewise.
    """

    probabilities: NDArray[np.float32]
    raw_map: NDArray[np.float32] | None
    features: NDArray[np.float32] | None = None
    energies: NDArray[np.float32] | None = None
    distances: NDArray[np.float64] | None = None
    shares: NDArray[np.float64] | None = None


class Network(Protocol):
    """Probabilities and decision maps of a batch of images, whatever library computes them."""

    @property
    def info(self) -> ModelInfo:
        """Description of the model."""

    @property
    def batch_size(self) -> int:
        """Number of images per call at which the network is fast."""

    def check_maps(self, map_class: int | None) -> None:
        """Check that maps of a class can be computed, before images are.

        Raises:
            InputError: The model has no maps of this class.
        """

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Compute the output for any number of images.

        Args:
            images: (B, side, side, channels) in the model's input format, not normalized.
            maps: Whether maps are computed; ignored by models without maps.
            map_classes: (B,) class of each map; None = the positive class, or for models without
                one the most probable class of each image.

        Raises:
            InputError: The model has no maps of these classes.
        """


def joined_outputs(parts: Sequence[NetworkOutput]) -> NetworkOutput:
    """Output for a batch from the outputs of its parts, at least one."""
    probabilities, *others = (
        None if any(one is None for one in column) else np.concatenate(column)
        for column in zip(*parts, strict=True)
    )
    assert probabilities is not None
    return NetworkOutput(probabilities, *others)


@dataclass(frozen=True)
class Unfamiliar:
    """How unfamiliar an image is, in comparison with validation images; true if it is flagged.

    Args:
        share: (k + 1) ÷ (n + 1), where k of n validation images are at least as far from the
            training images: a p-value for an image of the same kind (conformal, V. Vovk, A.
            Gammerman, G. Shafer 2005).
        rate: Rate of false alarms: an image is flagged if its share is at most this.
        distance: Distance from the training images.

    Example:
        >>> bool(Unfamiliar(0.003, 0.01, 40.0)), bool(Unfamiliar(0.4, 0.01, 20.0))
        (True, False)
    """

    share: float
    rate: float
    distance: float

    def __bool__(self) -> bool:
        return self.share <= self.rate


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
        return dict(zip(self.info.classes, self.class_probabilities.tolist(), strict=True))

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
        return self.map_at_image() if self.at == "image" else normalized(self.raw_map)

    def map_at_image(self) -> NDArray[np.float32]:
        """(height, width) decision map in [0, 1] over the image; 0 where the model does not see."""
        return over_image(normalized(self.raw_map), self.info.image_format, self.size)


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
            output = (None if column is None else column[index] for column in self.output)
            return replace(
                self,
                output=NetworkOutput._make(output),
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
        pairs = zip(shares.tolist(), distances.tolist(), strict=True)
        return [Unfamiliar(share, rate, distance) for share, distance in pairs]

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


def normalized(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Min-max normalization of (..., h, w) maps; zeros for constant maps.

    Example:
        >>> normalized(np.array([[1, 3], [2, 1]], np.float32)).tolist()
        [[0.0, 1.0], [0.5, 0.0]]
    """
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    spread = high - low
    largest = np.maximum(np.abs(low), np.abs(high))
    constant = (spread <= CONSTANT_TOLERANCE * largest) | (spread <= LEAST_SPREAD)
    scaled = (maps - low) / np.where(constant, np.float32(1), spread)
    return np.where(constant, 0, scaled).astype(np.float32)


def over_image(
    grid: NDArray[np.float32], form: ImageFormat, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Map over the whole image, linear between the centers of cells.

    Args:
        grid: (h, w) map on the grid of the model.
        form: Input format of the model, which determines the part of the image that the grid
            covers.
        size: Width and height of the image in pixels.

    Returns:
        (height, width) float32; 0 outside of the part that the model sees.

    Example:
        >>> grid = np.array([[0, 1]], np.float32)
        >>> over_image(grid, ImageFormat(2, "squash"), (4, 1)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    width, height = size
    box = fit_box(width, height, form.fit, form.size)
    rows = _weights(height, box.y0, box.y1, grid.shape[0])
    columns = _weights(width, box.x0, box.x1, grid.shape[1])
    return np.asarray(rows @ grid @ columns.T, np.float32)


def _weights(pixels: int, low: float, high: float, cells: int) -> NDArray[np.float32]:
    """(pixels, cells) weights of linear interpolation; the cells cover a part of one axis."""
    place = ((np.arange(pixels) + 0.5) / pixels - low) / (high - low)
    position = np.clip(place * cells - 0.5, 0, cells - 1)
    distance = np.abs(position[:, None] - np.arange(cells))
    inside = (place >= 0) & (place <= 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - distance) * inside[:, None]
    return weights.astype(np.float32)


def probe_batch_size(
    compute: Callable[[NDArray[np.uint8]], object], form: ImageFormat, *, gpu: bool
) -> int:
    """Batch size at which a network is fast, measured on random images.

    Args:
        compute: Computation of a batch, (B, side, side, channels); raises MemoryError if memory
            runs out.
        form: Input format of the network.
        gpu: Whether it runs on a GPU.
    """

    def seconds(size: int) -> float | None:
        """Time of a batch after a first one; None if memory runs out."""
        shape = (size, form.size, form.size, form.channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        try:
            compute(images)
            started = time.perf_counter()
            compute(images)
        except MemoryError:
            return None
        return time.perf_counter() - started

    return choose_batch_size(seconds, GPU_BATCH_SIZES if gpu else BATCH_SIZES)


def choose_batch_size(seconds: Callable[[int], float | None], sizes: Sequence[int]) -> int:
    """Smallest batch size from which on larger ones are hardly faster per image.

    Args:
        seconds: Function that returns the time of a batch of a size; None if memory runs out.
        sizes: Sizes to try, increasing.

    Example:
        >>> choose_batch_size(lambda size: 1e-3 * (size + 4), [8, 16, 32])
        32
        >>> choose_batch_size(lambda size: 1e-3 * size, [8, 16, 32])
        8
    """
    chosen, rate = sizes[0], 0.0
    for size in sizes:
        spent = seconds(size)
        if spent is None or size / spent < _GAIN * rate:
            break
        chosen, rate = size, size / spent
        if spent > _LONG:
            break
    return chosen
