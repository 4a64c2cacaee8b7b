"""Ensemble: mean of the probabilities and of the normalized maps of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from preceptor.config.image_format import ImageFormat
from preceptor.data.geometry import fit_boxes
from preceptor.errors import InputError
from preceptor.predictor.map_values import mean_of, normalised, resampled
from preceptor.predictor.model_info import MapKind, ModelInfo
from preceptor.predictor.network import Network, NetworkOutput


class Ensemble:
    """One or several networks with the same classes.

    The output of one network is returned as it is. Of several, the probabilities are averaged, and
    so are the normalized maps, on the grid of the first network. Input formats may differ.

    Args:
        networks: Networks, at least one.

    Raises:
        InputError: Classes or positive classes differ.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        if not networks:
            raise InputError("an ensemble needs at least one model")
        self._networks = tuple(networks)
        self.info = _common(tuple(network.info for network in networks))

    @property
    def formats(self) -> list[ImageFormat]:
        """Distinct input formats."""
        return list(dict.fromkeys(one.info.image_format for one in self._networks))

    @property
    def batch_size(self) -> int:
        """Number of images per call at which all networks are fast."""
        return min(network.batch_size for network in self._networks)

    def check_maps(self, map_class: int | None) -> None:
        """Check that maps of a class can be computed, before images are.

        Args:
            map_class: Class; None = as in `__call__`.

        Raises:
            InputError: A model has no maps of this class.
        """
        # Maps of all networks are of one class, which need not be the most probable one of each.
        several = len(self._networks) > 1 and map_class is None and self.info.positive is None
        for network in self._networks:
            for one in range(len(self.info.classes)) if several else (map_class,):
                network.check_maps(one)

    def __call__(
        self,
        canvases: Mapping[ImageFormat, NDArray[np.uint8]],
        sizes: NDArray[np.int64],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Compute the output for a batch.

        Args:
            canvases: (B, side, side, channels) images by input format.
            sizes: (B, 2) width and height of the images.
            maps: Whether maps are computed.
            map_classes: (B,) class of each map, see `Network.__call__`.
        """
        if len(self._networks) == 1:
            network = self._networks[0]
            images = canvases[network.info.image_format]
            return network(images, maps=maps, map_classes=map_classes)
        if maps and map_classes is None and self.info.positive is None:
            mean = self(canvases, sizes, maps=False).probabilities
            map_classes = np.asarray(mean.argmax(1), np.int64)
        found = [
            one(canvases[one.info.image_format], maps=maps, map_classes=map_classes)
            for one in self._networks
        ]
        probabilities = mean_of([one.probabilities for one in found])
        return NetworkOutput(probabilities, self._mean_map(found, sizes))

    def _mean_map(
        self, found: Sequence[NetworkOutput], sizes: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """(B, h, w) mean of the normalized maps; None if a network has none."""
        raw = [one.raw_map for one in found if one.raw_map is not None]
        if len(raw) < len(found):
            return None
        form = self._networks[0].info.image_format
        boxes = fit_boxes(sizes, form.fit, form.size)
        scaled = []
        for network, one in zip(self._networks, raw, strict=True):
            own, values = network.info.image_format, normalised(one)
            if (own, values.shape) != (form, raw[0].shape):
                regions = fit_boxes(sizes, own.fit, own.size)
                values = resampled(values, regions, boxes, raw[0].shape[1:])
            scaled.append(values)
        return mean_of(scaled)


def _common(infos: Sequence[ModelInfo]) -> ModelInfo:
    """Description of an ensemble; thresholds of its models do not hold for the mean of scores."""
    first = infos[0]
    if len(infos) == 1:
        return first
    for other in infos[1:]:
        if (other.classes, other.positive) != (first.classes, first.positive):
            raise InputError(
                f"an ensemble of models with the classes {list(first.classes)} (positive "
                f"{first.positive!r}) and {list(other.classes)} (positive {other.positive!r}); use "
                "models with the same classes and the same positive class"
            )
    kinds: set[MapKind] = {info.map_kind for info in infos}
    kind: MapKind = "none" if "none" in kinds else "gradcam" if "gradcam" in kinds else "cam"
    return ModelInfo(
        classes=first.classes,
        positive=first.positive,
        image_format=first.image_format,
        mean=first.mean,
        std=first.std,
        backbone=" + ".join(info.backbone for info in infos),
        map_kind=kind,
        thresholds={},
        version=first.version,
    )
