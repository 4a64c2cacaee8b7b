"""RISE: saliency maps from the scores of randomly masked images (Petsiuk et al., BMVC 2018).

The published map is E[f · m] / p, for scores f under masks m whose cells are on with probability p.
Up to scale and offset, which min-max normalization removes, it is the covariance
E[(f − f̄)(m − m̄)]. The default estimator uses blocks of balanced masks (`balanced_block`), in which
the mean score and the interactions of two cells cancel exactly; the variance over blocks estimates
the error of the map. docs/saliency.md has measurements.

Masks are grids of s × s cells, upsampled bilinearly: the mask is R_y · cells · R_xᵀ. For a shift of
the grid by whole pixels within a cell, R_y (H × s) has the bilinear weights of the cells at every
row, and R_x at every column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import torch
from scipy.special import fdtri
from torch import Tensor, nn

from preceptor.data.resampling import resample
from preceptor.saliency.masked_scores import Fill, MaskedScores, Score, first_of, fused
from preceptor.utils.process import evaluating

# The plastic number: multiples of its inverse powers cover the square evenly (M. Roberts, 2018).
_PLASTIC = 1.32471795724474602596


def ramps(side: int, cells: int) -> Tensor:
    """Bilinear weights R of every shift along one axis of `side` pixels: (⌈side / s⌉, side, s).

    As published, s cells are upsampled to (s + 1) · ⌈side / s⌉ pixels, of which `side` are cropped
    from a random offset within the first cell; beyond the outermost centers a cell keeps its value.
    """
    pixels = math.ceil(side / cells)
    position = torch.arange(side)[None] + torch.arange(pixels)[:, None]
    # Center of each pixel in units of cells, from the center of the first cell.
    center = ((position + 0.5) * cells / ((cells + 1) * pixels) - 0.5).clamp(0, cells - 1)
    left = center.floor().long().clamp(max=cells - 2)
    share = (center - left)[..., None]
    weights = torch.zeros(pixels, side, cells)
    weights.scatter_(2, left[..., None], 1 - share)
    return weights.scatter_add_(2, left[..., None] + 1, share)


class Block(NamedTuple):
    """Masks before upsampling."""

    cells: Tensor  # (n, s, s) of 0 and 1
    shifts: Tensor  # shifts along rows and columns in pixels: (2,) common to all masks, or (n, 2)


def render(block: Block, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, H, W) masks of a block in [0, 1], by the `ramps` along rows and columns."""
    cells, shifts = block
    count, side, _ = cells.shape
    if shifts.ndim == 2:
        return rows[shifts[:, 0]] @ (cells @ columns[shifts[:, 1]].transpose(1, 2))
    # One product for all masks, with the rows of all of them side by side: 3 times faster than a
    # product a mask.
    right = (cells @ columns[shifts[1]].T).transpose(0, 1).reshape(side, -1)
    return (rows[shifts[0]] @ right).view(rows.shape[1], count, -1).transpose(0, 1)


def random_block(
    cells: int, count: int, shifts: tuple[int, int], generator: torch.Generator
) -> Block:
    """Published masks: every cell on with probability ½, every mask with its own shift."""
    grids = torch.randint(0, 2, (count, cells, cells), generator=generator).float()
    moved = [torch.randint(0, most, (count,), generator=generator) for most in shifts]
    return Block(grids, torch.stack(moved, 1))


def full_block(cells: int) -> int:
    """Number of masks of a complete balanced block: 2 · (next power of two ≥ s²); 128 for s = 7."""
    return 2 << (cells * cells - 1).bit_length()


def balanced_block(
    cells: int, count: int, shift: tuple[int, int], generator: torch.Generator
) -> Block:
    """Balanced block of masks: every cell, and every pair of cells, is on equally often.

    The block is a foldover design: the rows of a Hadamard matrix, whose columns are assigned to the
    cells and negated at random, and the complement of every row. Each single mask is uniformly
    random, so that the limit is the same as with random masks. The mean score, the effects of other
    cells and the interactions of two cells cancel within the block instead of adding noise. In a
    block of fewer than `full_block(cells)` masks, cells are not balanced against each other.

    G. Box, K. Wilson, "On the Experimental Attainment of Optimum Conditions", 1951 (foldover);
    R. Plackett, J. Burman, "The Design of Optimum Multifactorial Experiments", 1946.
    """
    order = full_block(cells) // 2
    signs = torch.ones(1, 1)
    while len(signs) < order:  # Sylvester's construction
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    chosen = torch.randperm(order, generator=generator)[: cells * cells]
    turned = torch.randint(0, 2, (cells * cells,), generator=generator) * 2 - 1
    half = signs[: count // 2, chosen] * turned
    grids = (torch.cat([half, -half]) + 1) / 2
    return Block(grids.view(-1, cells, cells), torch.tensor(shift))


def spread_shift(
    index: int, start: tuple[float, float], shifts: tuple[int, int]
) -> tuple[int, int]:
    """Shift of the block `index` in a low-discrepancy sequence over all shifts."""
    places = [(begin + index / _PLASTIC ** (axis + 1)) % 1 for axis, begin in enumerate(start)]
    row, column = (int(share * most) for share, most in zip(places, shifts, strict=True))
    return row, column


Estimator = Literal["default", "published"]
Size = Literal["grid", "image"] | tuple[int, int]

# As published: 7 × 7 cells, each on with probability ½.
CELLS = 7
ON = 0.5
# Smallest number of blocks of a finished map: one block has no error estimate, and two may agree by
# chance.
LEAST_BLOCKS = 3
# Chance that blocks of pure noise agree as well as those of a map that counts as one. On grids of
# 7 × 7 such agreement is asked for by the tolerance anyway; on 2 × 2, three numbers agree easily:
# at each look 1 % of noise at tolerance 0.05, 13 % at 0.2.
CHANCE = 1e-4


class RiseResult(NamedTuple):
    """RISE maps with their estimated errors."""

    maps: Tensor  # (B, h, w) float32; scale and offset are arbitrary
    masks_used: Tensor  # (B,) int64 number of model evaluations of each map
    #: (B,) 1 − estimated correlation with the limit for infinitely many masks, in [0, 1]; 1 if the
    #: scores do not depend on the masks, or not significantly.
    error: Tensor


def rise_published(scores: Tensor, masks: Tensor, on: float = ON) -> Tensor:
    """Published estimator Σ f m / (n p), (..., h, w), of scores (..., n) and masks (n, h, w)."""
    return torch.einsum("...n,nhw->...hw", scores, masks) / (len(masks) * on)


def covariance(scores: Tensor, masks: Tensor) -> Tensor:
    """Covariance estimator, the mean of (f − f̄)(m − m̄); arguments as in `rise_published`."""
    centered = scores - scores.mean(-1, keepdim=True)
    return torch.einsum("...n,nhw->...hw", centered, masks - masks.mean(0)) / len(masks)


def rise(
    model: nn.Module | Callable[[Tensor], Any],
    images: Tensor,
    classes: Tensor,
    *,
    max_masks: int = 8000,
    tolerance: float = 0.05,
    estimator: Estimator = "default",
    score: Score = "probability",
    fill: Fill = 0.0,
    size: Size = "grid",
    seed: int = 0,
    cells: int = CELLS,
    batch_size: int | None = None,
) -> RiseResult:
    """RISE maps of one class per image.

    Masks are added in blocks until the estimated correlation of the map with its limit is at least
    1 − tolerance, separately for each image. The masks depend on the seed only and are the same for
    all images: results do not depend on how images are batched, up to rounding (about 1e-5 of the
    map's range in float32). The global random state is not used.

    `torch.autocast` is respected if active; images and model may be channels_last.

    Args:
        model: A `GuidedModel`, or any function that maps (N, C, H, W) to logits (N, K) or to a
            tuple that begins with them; one logit is treated as two classes. A module is in
            evaluation mode meanwhile, and its batch norms are fused into its convolutions in a
            copy.
        images: (B, C, H, W) normalized floats, the input of the model; any height and width.
        classes: (B,) int64 class of each map.
        max_masks: Maximum number of model evaluations per image; whole blocks are used (of 128
            masks at 7 × 7 cells, or of a third of max_masks if that is less).
        tolerance: Error at which an image is finished; 0 uses all masks.
        estimator: default, or published (independent masks and E[f · m] / p).
        score: probability, or logit: the log-odds of the class, ln p / (1 − p).
        fill: Value of masked pixels: a number in input space (0 = the mean color of the model's
            normalization), mean (the mean color of the image), or blur (the blurred image).
        size: Size of the maps: grid (the model's feature grid; for other models cells × cells),
            image, or (h, w).
        seed: Random seed of the masks.
        cells: Number of cells s per side.
        batch_size: Number of images per forward pass; None = depending on the device.

    Raises:
        ValueError: A shape or a value is invalid.

    Reference:
        V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
        Models", BMVC 2018.

    Example:
        >>> def bright(images):  # depends on the upper left quarter only
        ...     return images[:, :, :8, :8].mean((1, 2, 3))[:, None] * 4
        >>> found = rise(bright, torch.ones(1, 3, 16, 16), torch.tensor([1]), size=(2, 2))
        >>> found.maps.argmax().item()
        0
    """
    if images.ndim != 4 or classes.shape != (len(images),):
        raise ValueError(
            f"images {tuple(images.shape)} and classes {tuple(classes.shape)} must be "
            "(B, C, H, W) and (B,)"
        )
    if not len(images):
        raise ValueError("images is empty; at least one image is needed")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; they must be normalized floats")
    if cells < 2 or min(images.shape[-2:]) < cells:
        raise ValueError(f"cells is {cells}; it must be from 2 to the number of pixels of a side")
    if max_masks < 2 or not 0 <= tolerance < 1:
        raise ValueError(f"max_masks {max_masks} must be above 1, tolerance {tolerance} in [0, 1)")
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator {estimator!r} is not one of {', '.join(get_args(Estimator))}")
    if size not in ("grid", "image") and not (isinstance(size, tuple) and min(size) > 0):
        raise ValueError(f"size {size!r} is not grid, image or (h, w)")
    own: Any = model
    guidable = hasattr(model, "guidable_grid")  # a `GuidedModel`
    network = own.backbone if guidable and own.spec.pool.kind == "mean" else own
    # Not in inference mode: what a network then caches cannot be trained with.
    with evaluating(model), torch.no_grad():
        if size == "grid":
            grid = tuple(own(images[:1]).features.shape[-2:]) if guidable else (cells, cells)
        else:
            height, width = images.shape[-2:] if size == "image" else size
            grid = (height, width)
        run = fused(network, images[:1]) if isinstance(network, nn.Module) else network
        seen = MaskedScores(
            images,
            classes,
            lambda some: first_of(run(some)),
            score=score,
            fill=fill,
            batch_size=batch_size,
        )
        return _estimate(seen, grid, cells, max_masks, tolerance, estimator, seed)


def _estimate(
    seen: MaskedScores,
    grid: tuple[int, int],
    cells: int,
    max_masks: int,
    tolerance: float,
    estimator: Estimator,
    seed: int,
) -> RiseResult:
    """Add blocks until the map of each image reaches the tolerance."""
    height, width = seen.images.shape[-2:]
    device, count = seen.images.device, len(seen.images)
    rows, columns = ramps(height, cells), ramps(width, cells)
    # The same ramps averaged over the cells of the map: block maps are computed on its grid.
    rows_out = _averaged(rows, grid[0]).to(device)
    columns_out = _averaged(columns, grid[1]).to(device)
    rows, columns = rows.to(device), columns.to(device)
    total = torch.zeros(count, *grid, dtype=torch.float64, device=device)  # of the block maps
    # Sum of the squared norms of the block maps without their means.
    squares = torch.zeros(count, dtype=torch.float64, device=device)
    used = torch.zeros(count, dtype=torch.int64, device=device)
    error = torch.ones(count, dtype=torch.float64, device=device)
    active = torch.arange(count, device=device)  # images that are not finished
    shifts = (len(rows), len(columns))
    # Degrees of freedom: the cells of the masks that the map resolves, minus the mean.
    freedom = max(min(grid[0] * grid[1], cells * cells) - 1, 1)
    size = min(full_block(cells), max(2, max_masks // LEAST_BLOCKS // 2 * 2))
    for number, block in enumerate(_blocks(estimator, cells, size, shifts, seed), 1):
        if not len(active) or number * size > max_masks:
            break
        block = Block(block.cells.to(device), block.shifts.to(device))
        scores = seen(active, render(block, rows, columns)).double()
        estimate = _block_map(estimator, scores, block, rows_out, columns_out)
        total[active] += estimate
        squares[active] += centered(estimate).square().sum((1, 2))
        used[active] += size
        if number >= LEAST_BLOCKS:
            error[active] = error_of(total[active], squares[active], number, freedom)
            # The only synchronization per block: unfinished images. At tolerance 0 all continue.
            active = active[error[active] >= tolerance]
    maps = total / (used / size)[:, None, None]
    return RiseResult(maps.float(), used, error.float())


def error_of(total: Tensor, squares: Tensor, number: int, freedom: int) -> Tensor:
    """(B,) 1 − estimated correlation of the mean map with its limit.

    Let b_k be the maps of the blocks minus their means over the cells, b̄ the mean of the b_k over
    k = 1 … K, and ν = Σ‖b_k − b̄‖² / (K (K − 1)) the noise variance of b̄. The reliability is
    1 − ν / ‖b̄‖², and the correlation is its square root. For K = 2 the reliability is the
    split-half correlation r corrected by the Spearman-Brown formula, 2r / (1 + r). For noise,
    ‖b̄‖² / ν follows an F distribution; below its upper quantile `CHANCE` the error is set to 1.
    """
    mean = (centered(total) / number).square().sum((1, 2))
    noise = (squares / number - mean).clamp_min(0) / (number - 1)
    reliability = 1 - noise / mean.clamp_min(torch.finfo(mean.dtype).tiny)
    beyond = float(fdtri(freedom, freedom * (number - 1), 1 - CHANCE))
    # Constant and non-finite maps are uninformative.
    reliable = (mean > 0) & reliability.isfinite() & (mean > beyond * noise)
    return 1 - torch.where(reliable, reliability.clamp(0, 1), 0).sqrt()


def centered(maps: Tensor) -> Tensor:
    """(..., h, w) maps minus their means over the cells."""
    return maps - maps.mean((1, 2), keepdim=True)


def _blocks(
    estimator: Estimator, cells: int, count: int, shifts: tuple[int, int], seed: int
) -> Iterator[Block]:
    """Infinite sequence of mask blocks of a seed, `count` masks each."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.rand(2, generator=generator).tolist()
    index = 0
    while True:
        if estimator == "published":
            yield random_block(cells, count, shifts, generator)
        else:
            shift = spread_shift(index, (row, column), shifts)
            yield balanced_block(cells, count, shift, generator)
        index += 1


def _block_map(
    estimator: Estimator, scores: Tensor, block: Block, rows: Tensor, columns: Tensor
) -> Tensor:
    """(B, h, w) maps estimated from the scores (B, n) of one block."""
    if estimator == "published":
        return rise_published(scores, render(block, rows, columns).double())
    # All masks share their shift: covariance with the cells, upsampled like a mask.
    with_cells = covariance(scores, block.cells.double())
    return render(Block(with_cells, block.shifts), rows.double(), columns.double())


def _averaged(weights: Tensor, cells: int) -> Tensor:
    """(shifts, cells, s) ramps averaged over the cells of a map along their axis."""
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64).expand(len(weights), 4)
    return resample(weights, unit, unit, (cells, weights.shape[-1]))
