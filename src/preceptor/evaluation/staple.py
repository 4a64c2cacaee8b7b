"""STAPLE: the most probable true mask, given the masks of several annotators.

Warfield, Zou and Wells, "Simultaneous truth and performance level estimation (STAPLE): an algorithm
for the validation of image segmentation", IEEE TMI 2004; the binary form without a Markov random
field, solved by expectation maximization.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

# Both parameters of every annotator at the start, as in the paper: close to 1, which keeps the
# solution with true and false exchanged away.
_START = 0.99999
# Keeps the logarithm of 0 finite: an annotator without an error is then trusted nearly absolutely.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Truth:
    """Estimate of STAPLE.

    Args:
        probability: Probability of a mark in each pixel, of the shape of a mask.
        sensitivity: (annotators,) probability that a truly marked pixel was marked.
        specificity: (annotators,) probability that a truly unmarked pixel was left unmarked.
        iterations: Number of iterations.
    """

    probability: _Floats
    sensitivity: _Floats
    specificity: _Floats
    iterations: int


def staple(
    masks: NDArray[np.bool_],
    prior: float | _Floats | None = None,
    *,
    tolerance: float = 1e-10,
    iterations: int = 1000,
) -> Truth:
    """Estimate the true mask and the sensitivity and specificity of every annotator.

    With the decisions D_j of annotators j and their sensitivities p_j and specificities q_j, the
    probability of a mark in a pixel is

        W = a / (a + b),  a = f ∏_{D_j = 1} p_j ∏_{D_j = 0} (1 − p_j)
                          b = (1 − f) ∏_{D_j = 0} q_j ∏_{D_j = 1} (1 − q_j)

    and p_j = Σ W D_j / Σ W, q_j = Σ (1 − W)(1 − D_j) / Σ (1 − W) over all pixels; both steps are
    repeated until no parameter changes by more than the tolerance.

    Args:
        masks: bool of shape (annotators, …).
        prior: Spatial prior f, the probability of a mark before anybody is asked: one number for
            all pixels, or one for each, of the shape of a mask. None = the same in all pixels,
            the share of marked pixels over all annotators.
        tolerance: Largest change of a parameter after the last iteration.
        iterations: Maximum number of iterations.

    Raises:
        ValueError: There is no annotator, or the prior is not between 0 and 1.

    Example:
        >>> a = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]], bool)
        >>> staple(a).probability.round(2).tolist()
        [1.0, 1.0, 0.0, 0.0, 0.0]
    """
    shape = masks.shape[1:]
    if not len(masks):
        raise ValueError("no masks")
    flat = masks.reshape(len(masks), -1)
    # Pixels with equal decisions and an equal prior are equal: only different ones are computed.
    if prior is None or np.ndim(prior) == 0:
        shared = float(flat.mean() if prior is None else np.asarray(prior))
        different, place, count = _distinct(flat)
        f = np.full(len(count), shared)
    else:
        different, place = flat, np.arange(flat.shape[1])
        count, f = np.ones(flat.shape[1]), np.asarray(prior, np.float64).reshape(-1)
    if not ((f >= 0) & (f <= 1)).all() or len(f) != different.shape[1]:
        raise ValueError("the prior is not a number from 0 to 1 for each pixel")
    p = np.full(len(masks), _START)
    q = np.full(len(masks), _START)
    weight = _posterior(different, f, p, q)
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007
        marked, unmarked = weight * count, (1 - weight) * count
        new_p = _share(different @ marked, marked.sum(), p)
        new_q = _share(~different @ unmarked, unmarked.sum(), q)
        change = max(np.abs(new_p - p).max(), np.abs(new_q - q).max())
        p, q = new_p, new_q
        weight = _posterior(different, f, p, q)
        if change <= tolerance:
            break
    return Truth(weight[place].reshape(shape), p, q, done)


def _distinct(flat: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64], _Floats]:
    """Distinct columns, the place of each column among them, and their numbers."""
    packed = np.packbits(flat, axis=0)
    key = packed[0].astype(np.int64)
    for row in packed[1:8]:
        key = (key << 8) | row
    if len(packed) > 7:  # more than 56 annotators do not fit in one number
        _, first, place, count = np.unique(
            packed, axis=1, return_index=True, return_inverse=True, return_counts=True
        )
    else:
        _, first, place, count = np.unique(
            key, return_index=True, return_inverse=True, return_counts=True
        )
    return flat[:, first], place.reshape(-1), count.astype(np.float64)


def _posterior(masks: NDArray[np.bool_], f: _Floats, p: _Floats, q: _Floats) -> _Floats:
    """Probability of a mark, computed from logarithms: products of many annotators underflow."""

    def log(value: _Floats) -> _Floats:
        logarithm: _Floats = np.log(np.maximum(value, _SMALLEST))
        return logarithm

    marked, unmarked = masks.astype(np.float64), (~masks).astype(np.float64)
    a = log(p) @ marked + log(1 - p) @ unmarked
    b = log(q) @ unmarked + log(1 - q) @ marked
    with np.errstate(divide="ignore"):  # a prior of 0 or 1 decides alone
        odds = np.log(f) - np.log1p(-f) + a - b
    return 1 / (1 + np.exp(np.clip(-odds, -700, 700)))


def _share(part: _Floats, whole: float, before: _Floats) -> _Floats:
    return part / whole if whole > 0 else before
