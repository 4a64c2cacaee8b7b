"""Min-max normalization of maps, and detection of uninformative maps."""

from __future__ import annotations

import torch
from torch import Tensor

# A spread under this share of a map's largest value is rounding: float32 sums over a feature grid
# and area averages of a constant map stay below 1e-6 of it.
CONSTANT_TOLERANCE = 1e-5
# Below this spread a map counts as constant whatever its values: its gradient, 1 ÷ spread and more,
# would not fit float32, and infinities of both signs meet in a NaN. The smallest that any backbone
# gave was 1e-6.
LEAST_SPREAD = 1e-30


def informative(maps: Tensor) -> Tensor:
    """Whether each map is informative: finite everywhere and not constant.

    Args:
        maps: (B, h, w) of any type, bool and integers included.

    Returns:
        (B,) bool.

    Example:
        >>> informative(torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]], [[float("nan"), 1.0]]]))
        tensor([ True, False, False])
    """
    maps = _floating(maps)
    low, high = maps.amin((-2, -1)), maps.amax((-2, -1))
    spread = high - low
    # A NaN or an infinity anywhere shows in the spread; so does a range too wide for the type.
    return ~_constant(low, high) & torch.isfinite(spread)


def normalise(maps: Tensor) -> Tensor:
    """Min-max normalization of each map: (m − min m) ÷ (max m − min m); zeros for a constant map.

    The gradient flows through minimum and maximum; that of a constant map is zero.

    Args:
        maps: (B, h, w); bool and integers are converted to float32.

    Returns:
        (B, h, w) in [0, 1].

    Example:
        >>> normalise(torch.tensor([[[1.0, 3.0], [2.0, 1.0]], [[4.0, 4.0], [4.0, 4.0]]]))
        tensor([[[0.0000, 1.0000],
                 [0.5000, 0.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000],
                 [0.0000, 0.0000]]])
    """
    maps = _floating(maps)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    constant = _constant(low, high)
    return torch.where(constant, 0.0, (maps - low) / torch.where(constant, 1.0, high - low))


def _constant(low: Tensor, high: Tensor) -> Tensor:
    """Whether a map is constant up to rounding; False for maps with NaN, which stay NaN."""
    spread, largest = high - low, torch.maximum(low.abs(), high.abs())
    return (spread <= CONSTANT_TOLERANCE * largest) | (spread <= LEAST_SPREAD)


def _floating(maps: Tensor) -> Tensor:
    return maps if maps.is_floating_point() else maps.float()
