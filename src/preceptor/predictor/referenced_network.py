"""Network that compares each image with the reference of its model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.network import Network, NetworkOutput
from preceptor.predictor.reference import Reference


class ReferencedNetwork:
    """Network whose output has the distances from the training images.

    Args:
        network: Network that returns features and energies.
        reference: Reference of its model.
    """

    def __init__(self, network: Network, reference: Reference) -> None:
        self._network = network
        self._reference = reference
        self._info = replace(network.info, false_alarms=reference.rate)

    @property
    def info(self) -> ModelInfo:
        """Description of the model, with the rate of false alarms."""
        return self._info

    @property
    def batch_size(self) -> int:
        """Number of images per call at which the network is fast."""
        return self._network.batch_size

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Output with distances, see `Network.__call__`."""
        out = self._network(images, maps=maps, map_classes=map_classes)
        if out.features is None or out.energies is None:
            raise InputError(f"{self._info.backbone}: this network returns no features")
        distances = self._reference.distances_of(out.features, out.energies)
        return out._replace(distances=distances, shares=self._reference.shares_of(distances))
