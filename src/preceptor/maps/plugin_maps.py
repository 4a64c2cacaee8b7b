"""Maps of training images by a plugin of the group `preceptor.map_sources`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preceptor.errors import InputError
from preceptor.runtime.plugins import installed_plugin, load_plugin


class MapFunction(Protocol):
    """Function that makes maps of images without a model: the interface of a plugin."""

    def __call__(self, paths: Sequence[str], labels: Sequence[str]) -> ArrayLike:
        """(n, h, w) maps ≥ 0, each over the whole of its image.

        Args:
            paths: Paths of n training images.
            labels: Their labels.
        """
        ...


def plugin_maps(name: str, paths: Sequence[str], labels: Sequence[str]) -> NDArray[np.float32]:
    """(n, h, w) maps of a plugin.

    Args:
        name: Name of the plugin.
        paths: Paths of the images.
        labels: Their labels.

    Raises:
        InputError: The plugin is not installed, or its maps have another shape, or values that are
            negative or not finite.
    """
    make: MapFunction = load_plugin(installed_plugin("preceptor.map_sources", name, "maps: kind"))
    maps = np.asarray(make(paths, labels), np.float32)
    if maps.ndim != 3 or len(maps) != len(paths) or 0 in maps.shape[1:]:
        expected = f"({len(paths)}, height, width)"
        raise InputError(f"maps: kind {name} gave maps of shape {maps.shape}, not {expected}")
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise InputError(f"maps: kind {name} gave values that are negative or not finite")
    return maps
