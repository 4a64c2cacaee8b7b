"""Probabilities, features and energies of a model for many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.predictor.inputs import ImageInput
from preceptor.predictor.predictor import Predictor

Advance = Callable[[int], None]
StartTask = Callable[[str, int], Advance]
"""Function of a task's name and number of images that returns the function that advances it."""


@dataclass(frozen=True, eq=False)
class Observations:
    """What a model computes for n images.

    Args:
        probabilities: (n, C) float32.
        features: (n, p) float32.
        energies: (n,) float32.
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    energies: NDArray[np.float32]


def observe(
    predictor: Predictor,
    images: Iterable[ImageInput],
    *,
    advance: Advance = lambda count: None,
) -> Observations:
    """Run a model over images.

    Args:
        predictor: Predictor of one model.
        images: At least one image.
        advance: Function called with the number of further images that are done.

    Raises:
        InputError: An image cannot be read, or the model returns no features.
    """
    parts: list[Observations] = []
    for batch in predictor.batches(images, maps=False):
        for bad in batch.bad.values():
            raise InputError(f"{bad.source}: {bad.reason}; repair or remove it")
        found = batch.predictions
        assert found is not None
        out = found.output
        if out.features is None or out.energies is None:
            raise InputError(f"{predictor.info.backbone}: this model returns no features")
        parts.append(Observations(out.probabilities, out.features, out.energies))
        advance(batch.count)
    return Observations(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("probabilities", "features", "energies")
        )
    )


def sampled(table: pd.DataFrame, size: int) -> pd.DataFrame:
    """Rows of a table, at most `size` of them, drawn at random and in their order."""
    if len(table) <= size:
        return table
    drawn = np.random.default_rng(0).choice(len(table), size, replace=False)
    return table.iloc[np.sort(drawn)]
