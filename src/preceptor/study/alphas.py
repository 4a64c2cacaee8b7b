"""Values of α: the default grid of each distance, and the α of the paper."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from preceptor.config.guidance import Distance, Distances, distance_weights

# α grids by distance, so that (1 − α) ÷ α times the pull covers about what l2's grid covers. Median
# pull ÷ l2's at typical maps of 10 × 10 to 6 × 6 cells: mse 0.10 to
# 0.17, l1 0.10 to 0.17, dice 0.12 to 0.21, kl 0.6 to 1.0. Hence the grid of l1 and dice acts like
# l2 at about 0.01, 0.05, 0.1, 0.25, 0.4 and 0.9, and kl has l2's own. The distances of evidence
# depend on its level; at a spread of 4 between the cells, cells, evidence and cosine pull as l1 and
# dice do, energy at about half of that. All hold 0.1, for probes.
ALPHA_GRIDS: dict[Distance, tuple[float, ...]] = {
    "l2": (0.01, 0.05, 0.1, 0.25, 0.5, 0.9),
    "mse": (0.01, 0.1, 0.5),
    "l1": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "kl": (0.01, 0.05, 0.1, 0.25, 0.5, 0.9),
    "dice": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "cells": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "evidence": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "energy": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "cosine": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
}
PAPER_ALPHA = 0.5
Alpha = Annotated[float, Field(ge=0, lt=1)]


def main_distance(distance: Distances) -> Distance:
    """The distance with the largest weight, the first of several."""
    weights = distance_weights(distance)
    return max(weights, key=lambda name: weights[name])


def default_alphas(distance: Distances) -> tuple[float, ...]:
    """α grid of a distance; for that of a plugin the grid of l2."""
    return ALPHA_GRIDS.get(main_distance(distance), ALPHA_GRIDS["l2"])
