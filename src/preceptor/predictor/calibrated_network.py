"""Network with calibrated probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preceptor.predictor.calibration import Calibration
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.network import Network, NetworkOutput


class CalibratedNetwork:
    """Network whose probabilities are calibrated; thresholds are calibrated with them.

    Args:
        network: Network without a calibration.
        calibration: Calibration.
    """

    def __init__(self, network: Network, calibration: Calibration) -> None:
        self._network = network
        self._calibration = calibration
        self._info = calibrated_info(network.info, calibration)

    @property
    def info(self) -> ModelInfo:
        """Description of the model, with its calibration."""
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
        """Calibrated output, see `Network.__call__`."""
        out = self._network(images, maps=maps, map_classes=map_classes)
        return out._replace(
            probabilities=self._calibration(out.probabilities, self._info.positive_index)
        )


def calibrated_info(info: ModelInfo, calibration: Calibration) -> ModelInfo:
    """Description of a model with a calibration, whose thresholds are calibrated as well."""
    thresholds = {name: calibration.of_score(value) for name, value in info.thresholds.items()}
    return replace(info, thresholds=thresholds, calibration=calibration)
