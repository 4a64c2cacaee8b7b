"""Normalization of saliency maps, and measures of the agreement of two maps.

All measures take maps (B, h, w) on one grid and return `Agreement(values, valid)`, each (B,). If a
map of a pair is constant (up to rounding, see `informative`) or not finite, the measure is
undefined: `valid` is false and the value NaN. All other values are finite. Maps of other shapes
raise an InputError.

If a measure needs a distribution, a map x becomes p = (x − min x) / Σ (x − min x), so that raw CAMs
with negative values are allowed and the offset of a map has no effect.

Unless stated otherwise, definitions follow Bylinskii, Judd, Oliva, Torralba and Durand, "What do
different evaluation metrics tell us about saliency models?", IEEE TPAMI 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from preceptor.errors import InputError

_EPSILON = 1e-7  # added to probabilities: keeps the logarithm of an empty cell finite in float32
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


def normalize(maps: Tensor) -> Tensor:
    """Min-max normalization of each map: (m − min m) ÷ (max m − min m); zeros for a constant map.

    The gradient flows through minimum and maximum; that of a constant map is zero.

    Args:
        maps: (B, h, w); bool and integers are converted to float32.

    Returns:
        (B, h, w) in [0, 1].

    Example:
        >>> normalize(torch.tensor([[[1.0, 3.0], [2.0, 1.0]], [[4.0, 4.0], [4.0, 4.0]]]))
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


class Agreement(NamedTuple):
    """Values of a measure by map pair, and whether they are defined (undefined values are NaN)."""

    values: Tensor
    valid: Tensor


def correlation(a: Tensor, b: Tensor, *, normalized: bool = False) -> Agreement:
    """Pearson's correlation CC = cov(a, b) / (σ_a σ_b) over the cells of each map.

    Values in [−1, 1]; symmetric in a and b.

    Example:
        >>> a = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]])
        >>> correlation(a, 5 - 2 * a).values
        tensor([-1., nan])
    """
    (x, y), valid = _flat(a, b, normalized=normalized)
    return _masked(_pearson(x, y), valid)


def spearman(a: Tensor, b: Tensor) -> Agreement:
    """Spearman's rank correlation: Pearson's of the ranks, ties at their mean rank.

    Values in [−1, 1]; symmetric in a and b, invariant to increasing transformations of either.

    Reference:
        Spearman, "The proof and measurement of association between two things", 1904.

    Example:
        >>> a = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> spearman(a, a.exp()).values
        tensor([1.])
    """
    (x, y), valid = _flat(a, b)
    return _masked(_pearson(_unit(_ranks(x)), _unit(_ranks(y))), valid)


def similarity(a: Tensor, b: Tensor) -> Agreement:
    """Histogram intersection SIM = Σ min(p_a, p_b) of the maps as distributions.

    Values in [0, 1]: 1 for the same distribution, 0 without overlap; symmetric.

    Example:
        >>> a = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
        >>> similarity(a, torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])).values
        tensor([0.5000])
    """
    (x, y), valid = _flat(a, b)
    return _masked(torch.minimum(_distribution(x), _distribution(y)).sum(dim=1), valid)


def kl_divergence(model: Tensor, human: Tensor) -> Agreement:
    """Kullback-Leibler divergence Σ q log(ε + q / (p + ε)) of p (model) from q (human).

    ε = 1e-7. Cells that are high in the human map and near zero in the model's map dominate.

    Values ≥ 0 up to ε, 0 for the same distribution, at most about 16 (−log ε); not symmetric.

    Example:
        >>> human = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
        >>> kl_divergence(torch.tensor([[[0.0, 3.0], [0.0, 1.0]]]), human).values
        tensor([0.1438])
    """
    (x, y), valid = _flat(model, human)
    p, q = _distribution(x), _distribution(y)
    return _masked((q * torch.log(_EPSILON + q / (p + _EPSILON))).sum(dim=1), valid)


def nss(model: Tensor, human: Tensor) -> Agreement:
    """Normalized scanpath saliency NSS = Σ q (m − mean m) / σ_m.

    q is the human map as a distribution; for a binary human map, NSS is the mean of the
    standardized model map over the marked cells. σ has the divisor h·w.

    Values around 0 for chance, higher for agreement.

    Reference:
        Peters, Iyer, Itti and Koch, "Components of bottom-up gaze allocation in natural images",
        Vision Research 2005.

    Example:
        >>> model = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
        >>> nss(model, torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])).values
        tensor([1.])
    """
    (x, y), valid = _flat(model, human)
    centered = x - x.mean(dim=1, keepdim=True)
    z = centered / _nonzero(centered.square().mean(dim=1, keepdim=True).sqrt())
    return _masked((_distribution(y) * z).sum(dim=1), valid)


def iou_at_matched_area(model: Tensor, human: Tensor, threshold: float = 0.5) -> Agreement:
    """Intersection over union (IoU) of the human region and a model region of the same area.

    With k marked cells, the model's region consists of its k highest cells, so that its scale has
    no effect and no threshold is needed. Cells tied for the last places are counted in proportion
    (the expected intersection over the order of ties).

    Values in [0, 1]; not valid if no cell or every cell is marked.

    Example:
        >>> model = torch.tensor([[[0.1, 0.9], [0.8, 0.2]]])
        >>> iou_at_matched_area(model, torch.tensor([[[0, 1], [0, 1]]])).values
        tensor([0.3333])
    """
    x, marked, valid = _regions(model, human, threshold)
    area = marked.sum(dim=1, keepdim=True)
    falling = x.sort(dim=1, descending=True).values
    edge = falling.gather(1, (area - 1).clamp(min=0))
    above, tied = x > edge, x == edge
    room = (area - above.sum(dim=1, keepdim=True)) / _nonzero(tied.sum(dim=1, keepdim=True))
    shared = ((above + tied * room) * marked).sum(dim=1)
    return _masked(shared / _nonzero(2 * area.squeeze(1) - shared), valid)


def pointing_game(model: Tensor, human: Tensor, threshold: float = 0.5) -> Agreement:
    """Pointing game: 1 if the maximum of the model's map lies in the human region, else 0.

    For several equal maxima, the share of them that lies inside.

    Values in [0, 1]; not valid if no cell or every cell is marked.

    Reference:
        Zhang, Bargal, Lin, Brandt, Shen and Sclaroff, "Top-down neural attention by excitation
        backprop", IJCV 2018.

    Example:
        >>> model = torch.tensor([[[0.1, 0.9], [0.8, 0.2]]])
        >>> pointing_game(model, torch.tensor([[[0, 1], [0, 1]]])).values
        tensor([1.])
    """
    x, marked, valid = _regions(model, human, threshold)
    highest = x == x.amax(dim=1, keepdim=True)
    return _masked((highest & marked).sum(dim=1) / highest.sum(dim=1), valid)


def entropy(maps: Tensor) -> Agreement:
    """Normalized Shannon entropy of each map as a distribution, −Σ p log p / log(h·w).

    Values in [0, 1]: 0 for a single bright cell, 1 for a uniform map. The division by log(h·w)
    makes maps on different grids comparable.

    Reference:
        Shannon, "A mathematical theory of communication", 1948.

    Example:
        >>> entropy(torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 7.0]]])).values
        tensor([0.5000, 0.0000])
    """
    (x,), valid = _flat(maps)
    cells = max(2, x.shape[1])  # one cell is constant, hence not valid
    return _masked(
        torch.special.entr(_distribution(x)).sum(dim=1) / torch.tensor(cells).log(), valid
    )


def _flat(*maps: Tensor, normalized: bool = False) -> tuple[list[Tensor], Tensor]:
    """Maps as rows (B, h·w) scaled to [0, 1], and which pairs are valid; invalid ones are 0."""
    shapes = [tuple(each.shape) for each in maps]
    if len(set(shapes)) > 1 or len(shapes[0]) != 3 or 0 in shapes[0][1:]:
        raise InputError(
            f"maps must have the same shape (B, h, w); got {' and '.join(map(str, shapes))}"
        )
    rows, valid = [], torch.ones(shapes[0][0], dtype=torch.bool, device=maps[0].device)
    for each in maps:
        wide = each.dtype if each.dtype == torch.float64 else torch.float32
        own = each.detach().to(wide)
        known, row = informative(own), own.flatten(1)
        row = torch.where(known[:, None], row, torch.zeros_like(row))
        valid &= known
        rows.append(row if normalized else _unit(row))
    return rows, valid


def _regions(model: Tensor, human: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the model, marked cells, and which pairs are valid."""
    (x, _), valid = _flat(model, human)
    marked = (human > threshold).flatten(1)
    return x, marked, valid & marked.any(dim=1) & ~marked.all(dim=1)


def _unit(row: Tensor) -> Tensor:
    """Min-max normalization; it changes no measure, but limits rounding errors."""
    low, high = row.amin(dim=1, keepdim=True), row.amax(dim=1, keepdim=True)
    return (row - low) / _nonzero(high - low)


def _distribution(row: Tensor) -> Tensor:
    return row / _nonzero(row.sum(dim=1, keepdim=True))


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    norms = x.norm(dim=1) * y.norm(dim=1)
    return ((x * y).sum(dim=1) / _nonzero(norms)).clamp(-1, 1)


def _ranks(row: Tensor) -> Tensor:
    """Mean rank of each cell within its map, from 0."""
    rising = row.sort(dim=1).values
    first = torch.searchsorted(rising, row)
    after = torch.searchsorted(rising, row, right=True)
    return (first + after - 1).to(row.dtype) / 2


def _nonzero(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def _masked(values: Tensor, valid: Tensor) -> Agreement:
    return Agreement(values.masked_fill(~valid, float("nan")), valid)
