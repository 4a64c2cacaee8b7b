"""Network with the reference of its model: calibrated probabilities, and distances of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.network import Network, NetworkOutput
from preceptor.predictor.reference import Reference


class ReferencedNetwork:
    """Network whose probabilities are calibrated, with the distances from the training images.

    Args:
        network: Network that returns features and energies.
        reference: Reference of its model.
    """

    def __init__(self, network: Network, reference: Reference) -> None:
        self._network = network
        self._reference = reference
        self._info = referenced_info(network.info, reference)

    @property
    def info(self) -> ModelInfo:
        """Description of the model, see `referenced_info`."""
        return self._info

    @property
    def batch_size(self) -> int:
        """Number of images per call at which the network is fast."""
        return self._network.batch_size

    def check_maps(self, map_class: int | None) -> None:
        """Check that maps of a class can be computed, see `Network.check_maps`."""
        self._network.check_maps(map_class)

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Calibrated output with distances, see `Network.__call__`."""
        out = self._network(images, maps=maps, map_classes=map_classes)
        if out.features is None or out.energies is None:
            raise InputError(f"{self._info.backbone}: this network returns no features")
        distances = self._reference.distances_of(out.features, out.energies)
        calibration = self._reference.calibration
        if calibration is not None:
            thresholds = self._network.info.thresholds.values()
            calibrated = calibration(out.probabilities, self._info.positive_index, thresholds)
            out = out._replace(probabilities=calibrated)
        return out._replace(distances=distances, shares=self._reference.shares_of(distances))


def referenced_info(info: ModelInfo, reference: Reference) -> ModelInfo:
    """Description of a model with a reference: thresholds are calibrated with the probabilities."""
    info = replace(info, false_alarms=reference.rate)
    calibration = reference.calibration
    if calibration is None:
        return info
    thresholds = calibration.of_thresholds(info.thresholds)
    return replace(info, thresholds=thresholds, calibration=calibration)
