"""Soft labels: a Teacher's class probabilities as training targets of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.maps.store import read_store


def soft_targets(
    path: Path, names: NDArray[np.object_], classes: Sequence[str]
) -> NDArray[np.float32]:
    """Class probabilities of images from a Teacher's map store.

    Args:
        path: Folder of the map store.
        names: (n,) image paths as in the manifest.
        classes: C class names; those of the store may be in another order.

    Returns:
        (n, C) in the order of `classes`; NaN rows for images that the store lacks.

    Raises:
        InputError: There is no map store, or it has no probabilities, other classes or other
            images.
    """
    store = read_store(path, columns=("probabilities",))
    if store.probabilities is None:
        raise InputError(
            f"soft_labels: the map store {path} has no probabilities; make the maps again with "
            "`preceptor annotate`"
        )
    if sorted(store.info.classes) != sorted(classes):
        raise InputError(
            f"soft_labels: {path} has the classes {list(store.info.classes)}, and the run has "
            f"{list(classes)}"
        )
    place = {name: position for position, name in enumerate(store.paths)}
    found = np.array([place.get(name, -1) for name in names], np.int64)
    if not (found >= 0).any():
        raise InputError(
            f"soft_labels: {path} contains none of the {len(names):,} training images; make maps "
            "for this manifest"
        )
    order = [store.info.classes.index(name) for name in classes]
    targets = np.full((len(names), len(order)), np.nan, np.float32)
    targets[found >= 0] = store.probabilities[found[found >= 0]][:, order]
    return targets
