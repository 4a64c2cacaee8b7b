"""Log-odds of probabilities, by which images are ranked.

A probability near 1 cannot be told from 1: in float32 all log-odds above 17 become the score 1, and
in float64 all above 37. Images of both classes would be tied there, while those near 0 keep their
order, so that an AUC of probabilities would depend on which class is called positive. The log-odds
are computed from the probabilities of all classes, of which one is small where another is near 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preceptor.evaluation.arrays import Array

_SMALLEST = 5e-324  # the smallest positive float64: a probability of 0 has log-odds of −744
_TOLERANCE = 1e-3


def log_odds(probabilities: npt.ArrayLike) -> Array:
    """Log-odds of each class against all others: log p_c − log Σ_{k≠c} p_k.

    Args:
        probabilities: (n, C) probabilities of all classes, C ≥ 2. Scores that are no probabilities
            (below 0, or with a sum other than 1 in a row) are returned as they are.

    Returns:
        (n, C) float64, finite for probabilities.

    Example:
        >>> log_odds([[1.0, 1e-20], [1.0, 1e-30]]).round(2).tolist()
        [[46.05, -46.05], [69.08, -69.08]]
    """
    given = np.asarray(probabilities, np.float64)
    total = given.sum(axis=1, keepdims=True)
    if not ((given >= 0).all() and (np.abs(total - 1) < _TOLERANCE).all()):
        return given
    others = total - given
    # Not by subtraction where a class has nearly everything: the sum of the small ones is exact.
    rows, top = np.arange(len(given)), given.argmax(axis=1)
    small = given.copy()
    small[rows, top] = 0
    others[rows, top] = small.sum(axis=1)
    found: Array = np.log(np.maximum(given, _SMALLEST)) - np.log(np.maximum(others, _SMALLEST))
    return found
