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

from preceptor.config.run import Method, RiseSettings
from preceptor.data.manifest import Manifest
from preceptor.maps.store import MapStore

# Images whose RISE masks are made together; each takes as many model evaluations as it needs.
RISE_IMAGES = 32
# What an image takes of RISE's masks, about: it stops by itself.
USUAL_MASKS = 1000
# Model evaluations of a shard: seconds on a GPU, minutes on a core.
SHARD_FORWARDS = 4096


@dataclass(frozen=True)
class Shard:
    """Images of one split that are marked together.

    Args:
        split: Its name, or `all`.
        start, stop: Of its images, in manifest order; for agreement of those with human maps.
        agreement: Whether these are validation images, of which only the correlation of RISE's map
            with the human one is kept.
    """

    split: str
    start: int
    stop: int
    agreement: bool = False

    def rows(self, manifest: Manifest) -> NDArray[np.int64]:
        """(n,) the manifest rows of its images."""
        found = _mapped(manifest, self.split) if self.agreement else _split(manifest, self.split)
        return found[self.start : self.stop]


def forwards_of(method: Method, turns: bool, rise: RiseSettings | None) -> int:
    """Model evaluations an image, about."""
    if method == "rise":
        return min((rise or RiseSettings()).max_masks, USUAL_MASKS)
    return 8 if turns else 1


def shards_of(
    manifest: Manifest, splits: str, method: Method, forwards: int, *, agreement: bool
) -> tuple[Shard, ...]:
    """The shards of a marking.

    Args:
        manifest: Of the images.
        splits: train, all, or a split's name.
        method: cam or rise.
        forwards: Model evaluations an image.
        agreement: Whether RISE looks at the validation images with human maps too.
    """
    images = max(RISE_IMAGES, SHARD_FORWARDS // forwards // 64 * 64)  # whole batches of either
    sets = [(splits, len(_split(manifest, splits)), False)]
    if agreement and method == "rise":
        sets += [(name, len(_mapped(manifest, name)), True) for name in manifest.eval_splits("val")]
    return tuple(
        Shard(name, start, min(start + images, count), looks)
        for name, count, looks in sets
        for start in range(0, count, images)
    )


def joined(stores: Sequence[MapStore]) -> MapStore:
    """The stores of shards as one, in their order."""
    first = stores[0]
    settings = dict(first.info.settings)
    if "masks" in settings:
        settings["masks"] = sum(int(store.info.settings["masks"]) for store in stores)
    together: dict[str, Any] = {}
    for name in ("paths", "maps", "classes", "scores", "probabilities", "agreement", "error"):
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
