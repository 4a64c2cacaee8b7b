"""Division of map making into shards, which can be computed by several machines.

The boundaries of the shards depend only on the data and the method. Therefore one process and a
cluster write identical map stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.config.maps import METHOD_NAMES, Method, RiseSettings
from preceptor.data.manifest import Manifest
from preceptor.maps.store import MapStore

# Images that share RISE masks; the number of model evaluations differs between images.
RISE_IMAGES = 32
# Approximate number of RISE masks per image (the stopping rule determines the actual number).
USUAL_MASKS = 1000
# Number of model evaluations of a shard: seconds on a GPU, minutes on a core. A shard of RISE has
# more, which `rise_rows` continues after an interruption.
SHARD_FORWARDS = 4096


@dataclass(frozen=True)
class Shard:
    """Shard of the images of one split.

    Args:
        split: Name of the split, or `all`.
        start, stop: Range of its images in manifest order; with `agreement`, of those with human
            maps.
        agreement: Whether these are validation images, for which only the correlation of the RISE
            map with the human map is computed.
    """

    split: str
    start: int
    stop: int
    agreement: bool = False

    def rows(self, manifest: Manifest) -> NDArray[np.int64]:
        """(n,) manifest rows of the images."""
        found = _mapped(manifest, self.split) if self.agreement else _split(manifest, self.split)
        return found[self.start : self.stop]


def forwards_of(method: Method, rise: RiseSettings | None) -> int:
    """Approximate number of model evaluations per image."""
    if method == "rise":
        return min((rise or RiseSettings()).max_masks, USUAL_MASKS)
    if method not in METHOD_NAMES.own:
        return 3  # a forward and a backward pass
    return 1


def shards_of(
    manifest: Manifest, splits: str, method: Method, forwards: int, *, agreement: bool
) -> tuple[Shard, ...]:
    """Shards of a map-making step.

    Args:
        manifest: Manifest of the images.
        splits: Images: train, all, or the name of a split.
        method: Saliency method.
        forwards: Number of model evaluations per image.
        agreement: Whether rise or a plugin is also applied to validation images with human maps.
    """
    images = max(
        RISE_IMAGES, SHARD_FORWARDS // forwards // 64 * 64
    )  # whole batches for both methods
    sets = [(splits, len(_split(manifest, splits)), False)]
    if agreement and method not in ("cam", "cells"):
        sets += [(name, len(_mapped(manifest, name)), True) for name in manifest.eval_splits("val")]
    return tuple(
        Shard(name, start, min(start + images, count), looks)
        for name, count, looks in sets
        for start in range(0, count, images)
    )


def joined(stores: Sequence[MapStore]) -> MapStore:
    """Join the map stores of shards, in order."""
    first = stores[0]
    settings = dict(first.info.settings)
    if "masks" in settings:
        settings["masks"] = sum(int(store.info.settings["masks"]) for store in stores)
    together: dict[str, Any] = {}
    for name in ("paths", "maps", "classes", "scores", "probabilities", "error"):
        parts = [getattr(store, name) for store in stores]
        together[name] = None if parts[0] is None else np.concatenate(parts)
    return MapStore(replace(first.info, settings=settings), **together)


def _split(manifest: Manifest, splits: str) -> NDArray[np.int64]:
    if splits == "all":
        return np.arange(len(manifest))
    return np.flatnonzero((manifest.table["split"] == splits).to_numpy(bool))


def _mapped(manifest: Manifest, split: str) -> NDArray[np.int64]:
    table = manifest.table
    return np.flatnonzero(((table["split"] == split) & (table["saliency"] != "")).to_numpy(bool))
