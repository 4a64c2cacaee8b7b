"""Interface of the computation of probabilities and maps, whatever library runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from preceptor.predictor.model_info import ModelInfo


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


def joined_outputs(parts: Sequence[NetworkOutput]) -> NetworkOutput:
    """Output for a batch from the outputs of its parts, at least one."""
    probabilities, *others = (
        None if any(one is None for one in column) else np.concatenate(column)
        for column in zip(*parts, strict=True)
    )
    assert probabilities is not None
    return NetworkOutput(probabilities, *others)


class Network(Protocol):
    """Probabilities and decision maps of a batch of images."""

    @property
    def info(self) -> ModelInfo:
        """Description of the model."""

    @property
    def batch_size(self) -> int:
        """Number of images per call at which the network is fast."""

    def check_maps(self, map_class: int | None) -> None:
        """Check that maps of a class can be computed, before images are.

        Args:
            map_class: Class; None = as in `__call__`.

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
