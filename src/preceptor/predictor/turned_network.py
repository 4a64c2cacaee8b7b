"""Test-time augmentation: means over the eight flips and quarter turns of an image."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from preceptor.data.geometry import TURNS, Turn, turn_array
from preceptor.predictor.map_values import mean_of, normalised
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.network import Network, NetworkOutput

Number = TypeVar("Number", bound=np.generic)


class TurnedNetwork:
    """Network whose output is the mean over the eight flips and quarter turns of each image.

    Probabilities are averaged, as are the normalized maps, each turned back; features are those of
    the image itself. Eight passes per image; sixteen for maps of a model without a positive class,
    since the most probable class is known only after the last turn.

    Args:
        network: Network.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def info(self) -> ModelInfo:
        """Description of the model."""
        return self._network.info

    @property
    def batch_size(self) -> int:
        """Number of images per call at which the network is fast."""
        return self._network.batch_size

    def check_maps(self, map_class: int | None) -> None:
        """Check that maps of a class can be computed, see `Network.check_maps`."""
        # Maps of all turns are of one class, which need not be the most probable one of each turn.
        if map_class is None and self.info.positive is None:
            for one in range(len(self.info.classes)):
                self._network.check_maps(one)
        else:
            self._network.check_maps(map_class)

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Mean output, see `Network.__call__`."""
        if maps and map_classes is None and self.info.positive is None:
            map_classes = np.asarray(self(images, maps=False).probabilities.argmax(1), np.int64)
        found = [
            self._network(_turned(images, turn), maps=maps, map_classes=map_classes)
            for turn in TURNS
        ]
        probabilities = mean_of([one.probabilities for one in found])
        back = [
            _turned(normalised(one.raw_map), turn.back)
            for one, turn in zip(found, TURNS, strict=True)
            if one.raw_map is not None
        ]
        # The upright image's: features of other turns differ, and distances are of single images.
        upright = found[0]
        return upright._replace(
            probabilities=probabilities, raw_map=mean_of(back) if back else None
        )


def _turned(batch: NDArray[Number], turn: Turn) -> NDArray[Number]:
    """Apply a turn to the second and third axes of (B, H, W, ...)."""
    turned: NDArray[Any] = turn_array(np.moveaxis(batch, 0, 2), turn)
    return np.ascontiguousarray(np.moveaxis(turned, 2, 0))
