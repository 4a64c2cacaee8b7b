"""Changes of a batch of images, ordered by operation on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.data.draws import Changes
from preceptor.data.jpeg import cosines, quantisation_tables
from preceptor.data.outside import Outside
from preceptor.data.resampling import blur_radius


class Turned(NamedTuple):
    """Consecutive images of one orientation: transposed first, then flipped.

    Args:
        start, stop: Their places in the order.
        transposed: Whether x and y change places.
        down, across: Whether y or x run backwards.
    """

    start: int
    stop: int
    transposed: bool
    down: bool
    across: bool


class Blurred(NamedTuple):
    """Consecutive images that are all blurred, by a widest radius in pixels, or all not: 0."""

    start: int
    stop: int
    radius: int


@dataclass(frozen=True)
class Prepared:
    """Changes of a batch, ordered so that images with the same operations are consecutive.

    The choice of operations depends only on values on the host, so that `apply` never waits for the
    device.

    Args:
        size: Side of the result in pixels.
        crops: (B, 3) left, top and side, in this order; None = canvases have the right size.
        turned: All images by orientation.
        blurred: All images by blur.
        colored: Whether colors change.
        order: (B,) int64, positions in the batch.
        places: (B,) int64, the place of each image of the batch in this order.
        values: (B, 7) float32, in this order: left, top, side, sigma, and the factors of
            brightness, contrast and saturation.
        tables: (n, 2, 8, 8) quantisation tables of the last n images of the order, which are those
            that are compressed.
        transform: (8, 8) of `jpeg.cosines`.
        outside: Changes outside the maps, whose places are those of this order; None = none.
        partners: Images that replace the outside, for kind other; None = none.
    """

    size: int
    crops: NDArray[np.int64] | None
    turned: tuple[Turned, ...]
    blurred: tuple[Blurred, ...]
    colored: bool
    order: Tensor
    places: Tensor
    values: Tensor
    tables: Tensor
    transform: Tensor
    outside: Outside | None = None
    partners: Partners | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Prepared:
        """The same with every tensor passed through `move`."""
        return replace(
            self,
            order=move(self.order),
            places=move(self.places),
            values=move(self.values),
            tables=move(self.tables),
            transform=move(self.transform),
            outside=None if self.outside is None else self.outside.moved(move),
            partners=None if self.partners is None else self.partners.moved(move),
        )

    def without_outside(self) -> Prepared:
        """The same without changes outside maps."""
        return replace(self, outside=None, partners=None)

    def changed_outside(self) -> Tensor:
        """(B,) bool, whether each image of the batch is changed outside its map."""
        found = torch.zeros(len(self.order), dtype=torch.bool, device=self.order.device)
        if self.outside is None:
            return found
        return found.index_fill_(0, self.order.index_select(0, self.outside.places), True)


class Partners(NamedTuple):
    """Other images that replace the outside of maps.

    Args:
        canvases: (n, H, H, C) canvases, one for each changed image.
        prepared: Their crops, flips and quarter turns, which are those of the changed images.
    """

    canvases: Tensor
    prepared: Prepared

    def moved(self, move: Callable[[Tensor], Tensor]) -> Partners:
        """The same with every tensor passed through `move`."""
        return Partners(move(self.canvases), self.prepared.moved(move))


def prepare(
    changes: Changes,
    side: int,
    size: int,
    outside: Outside | None = None,
    partners: Tensor | None = None,
) -> Prepared:
    """Order the changes of a batch.

    Args:
        changes: Changes of B images.
        side, size: Sides of the canvases and of the result, in pixels.
        outside: Changes outside the maps, whose places are positions in the batch.
        partners: (n, H, H, C) canvases of the images that replace the outside, or None.
    """
    count = len(changes.flips)
    # A quarter turn is a transposition followed by flips. With the flip before it, this says which
    # axes of the result run backwards.
    odd = changes.quarters % 2 == 1
    down = (changes.quarters % 3 > 0) ^ (changes.flips & odd)
    across = (changes.quarters >= 2) ^ (changes.flips & ~odd)
    blurred, compressed = changes.sigmas > 0, changes.qualities > 0
    order = np.lexsort((across, down, odd, blurred, compressed))
    orientations = np.column_stack([odd, down, across])[order]
    radii = np.array([blur_radius(sigma) for sigma in changes.sigmas[order]], np.int64)
    factors = np.ones((count, 3)) if changes.factors is None else changes.factors
    values = np.column_stack([changes.crops, changes.sigmas, factors])[order].astype(np.float32)
    crops, places = changes.crops[order], torch.from_numpy(np.argsort(order))
    found = None
    if outside is not None:
        if partners is not None:
            moves = changes.geometry(outside.places.numpy())
            found = Partners(partners, prepare(moves, side, size))
        outside = outside._replace(places=places[outside.places])
    whole = side == size and bool((crops[:, 2] == size).all())
    return Prepared(
        size,
        None if whole else crops,
        tuple(
            Turned(start, stop, *orientations[start].tolist())
            for start, stop in _runs(orientations)
        ),
        tuple(
            Blurred(start, stop, int(radii[start:stop].max()) if blurred[order[start]] else 0)
            for start, stop in _runs(blurred[order][:, None])
        ),
        changes.factors is not None,
        torch.from_numpy(order),
        places,
        torch.from_numpy(values),
        torch.from_numpy(quantisation_tables(changes.qualities[order][count - compressed.sum() :])),
        torch.from_numpy(cosines()),
        outside,
        found,
    )


def _runs(rows: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of the runs of equal rows."""
    borders = np.flatnonzero((rows[1:] != rows[:-1]).any(1)) + 1
    return list(pairwise([0, *borders.tolist(), len(rows)]))
