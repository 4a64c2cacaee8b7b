"""A Teacher's class probabilities as training targets, brought to the rows and classes of a run."""

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
    """The probabilities that a Teacher's map store keeps of these images.

    Args:
        path: Folder of the store.
        names: (n,) image paths as the manifest writes them.
        classes: C class names; the store's may be in another order.

    Returns:
        (n, C) in the order of `classes`; NaN rows for images that the store lacks.

    Raises:
        InputError: No store, or one without probabilities, of other classes, or of other images.
    """
    store = read_store(path, columns=("probabilities",))
    if store.probabilities is None:
        raise InputError(
            f"soft_labels: the map store {path} keeps no probabilities; mark the images again with "
            "the Teacher's model"
        )
    if sorted(store.info.classes) != sorted(classes):
        raise InputError(
            f"soft_labels: {path} is of the classes {list(store.info.classes)}, and the run of "
            f"{list(classes)}"
        )
    place = {name: position for position, name in enumerate(store.paths)}
    found = np.array([place.get(name, -1) for name in names], np.int64)
    if not (found >= 0).any():
        raise InputError(f"soft_labels: {path} holds none of the {len(names):,} training images")
    order = [store.info.classes.index(name) for name in classes]
    targets = np.full((len(names), len(order)), np.nan, np.float32)
    targets[found >= 0] = store.probabilities[found[found >= 0]][:, order]
    return targets
