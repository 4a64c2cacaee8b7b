"""Simulated annotator: marks an image from its known map, with a stated error and stated costs.

It measures what proposals and orders of images save without people. The costs are assumptions, not
measurements of people; every result that rests on them states them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preceptor.label.annotator_config import Costs, Error

Mask = NDArray[np.bool_]
_EIGHT = np.ones((3, 3), bool)  # components are connected over corners


@dataclass(frozen=True)
class Stroke:
    """A stroke: the pixels that it changes, and its time.

    Args:
        erase: Whether the pixels are erased.
        pixels: (h, w) changed pixels of the whole image.
        seconds: Duration.
    """

    erase: bool
    pixels: Mask
    seconds: float


@dataclass(frozen=True)
class Marking:
    """How an image is marked.

    Args:
        strokes: Strokes in order, after the proposal if it was adopted.
        adopted: Whether the proposal was adopted.
        seconds: Duration of all work on the image.
    """

    strokes: list[Stroke]
    adopted: bool
    seconds: float


def intended_mark(truth: Mask, error: Error, rng: np.random.Generator) -> Mask:
    """What an annotator means to mark: the known marks, each displaced and grown a little.

    Args:
        truth: (h, w) known mark.
        error: Deviation.
        rng: Random generator.
    """
    labels, count = ndimage.label(truth, _EIGHT)
    intended = np.zeros_like(truth)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        assert count
        pixels = labels[place] == number
        side = float(np.sqrt(pixels.sum()))
        margin = int(np.ceil(side * 3 * (error.shift + error.scale))) + 2
        padded = np.pad(pixels, margin)
        # Distance to the border, positive inside; pixel centers are half a pixel from it.
        inside, outside = (ndimage.distance_transform_edt(one) for one in (padded, ~padded))
        depth = np.where(padded, inside - 0.5, 0.5 - outside)
        grown = depth > -side * rng.normal(0, error.scale)
        moved = ndimage.shift(
            grown.astype(np.uint8), np.rint(side * rng.normal(0, error.shift, 2)), order=0
        )
        _add(intended, moved > 0, place[0].start - margin, place[1].start - margin)
    return intended


def _add(target: Mask, pixels: Mask, top: int, left: int) -> None:
    """Set pixels at a place that may lie partly outside of the target."""
    height, width = target.shape
    rows = slice(max(0, -top), min(pixels.shape[0], height - top))
    columns = slice(max(0, -left), min(pixels.shape[1], width - left))
    target[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop] |= (
        pixels[rows, columns]
    )


def mark(
    intended: Mask, proposal: Mask | None, costs: Costs | None = None, error: Error | None = None
) -> Marking:
    """Mark an image, in the cheaper of two ways: from nothing, or by correction of a proposal.

    A connected region is painted or erased by one stroke. It follows the border of the intended
    mark within twice the tolerance, and crosses the region with a brush of its greatest thickness,
    where it may deviate by as much: the time is that of the stroke and `Costs.steer` times (length
    of the border ÷ (2 · tolerance) + area ÷ thickness²). Deviations of a proposal that are thinner
    than the tolerance are left.

    Args:
        intended: (h, w) what the annotator means to mark.
        proposal: (h, w) proposal; None = there is none.
        costs: Seconds; None = defaults.
        error: Deviation; only its tolerance, above 0, is used; None = defaults.
    """
    costs, error = costs or Costs(), error or Error()
    around = costs.open + costs.answer
    empty = np.zeros_like(intended)
    thin = error.tolerance * max(intended.shape)
    drawn = _strokes(empty, intended, costs, thin)
    if proposal is None:
        return Marking(drawn, False, around + _seconds(drawn))
    around += costs.judge
    corrected = _strokes(proposal, intended, costs, thin)
    adopting = costs.answer + _seconds(corrected)
    if adopting < _seconds(drawn):
        return Marking(corrected, True, around + adopting)
    return Marking(drawn, False, around + _seconds(drawn))


def mark_after(
    intended: Mask, proposal: Mask, costs: Costs | None = None, error: Error | None = None
) -> Marking:
    """Mark an image whose proposal is shown after the first own stroke.

    Arguments as of `mark`. The first stroke is drawn from nothing; then either the others are, or
    the proposal is added and corrected, whichever is cheaper. `Marking.strokes` begins with the
    stroke before the proposal.
    """
    costs, error = costs or Costs(), error or Error()
    thin = error.tolerance * max(intended.shape)
    drawn = _strokes(np.zeros_like(intended), intended, costs, thin)
    around = costs.open + costs.answer
    if not drawn:
        return Marking(drawn, False, around)
    around += costs.judge + drawn[0].seconds
    corrected = _strokes(proposal | drawn[0].pixels, intended, costs, thin)
    if costs.answer + _seconds(corrected) < _seconds(drawn[1:]):
        return Marking([drawn[0], *corrected], True, around + costs.answer + _seconds(corrected))
    return Marking(drawn, False, around + _seconds(drawn[1:]))


def _seconds(strokes: list[Stroke]) -> float:
    return sum(stroke.seconds for stroke in strokes)


def _strokes(start: Mask, goal: Mask, costs: Costs, tolerance: float) -> list[Stroke]:
    """Strokes from a mask to another; the tolerance is in pixels."""
    found: list[Stroke] = []
    edge = goal & ~ndimage.binary_erosion(goal, border_value=1)
    outer = ~goal & ndimage.binary_dilation(goal)
    for erase, wrong in ((True, start & ~goal), (False, goal & ~start)):
        labels, _ = ndimage.label(wrong, _EIGHT)
        depth = ndimage.distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        whole, _ = ndimage.label(start if erase else goal, _EIGHT)
        sizes = np.bincount(whole.ravel())
        for number, place in enumerate(ndimage.find_objects(labels), start=1):
            pixels = labels[place] == number
            thickness = 2 * float(depth[place][pixels].max())
            area = int(pixels.sum())
            complete = area == sizes[whole[place][pixels][0]]  # a mark of its own, not a border
            if thickness <= 2 * tolerance and not complete:
                continue
            changed = np.zeros_like(goal)
            changed[place] = pixels
            border = int((pixels & (outer if erase else edge)[place]).sum())
            difficulty = border / (2 * tolerance) + area / thickness**2
            found.append(Stroke(erase, changed, costs.stroke + costs.steer * difficulty))
    return found
