"""Random masks of RISE: coarse binary cells, upsampled bilinearly and shifted within a cell.

A mask is computed by two small matrix products, R_y · cells · R_xᵀ. For a shift of the grid,
R_y (H × s) contains the bilinear weights of the s cells at every row, and R_x those at every
column. The shift moves the grid by whole pixels within a cell, so that the number of different R
equals the number of pixels of a cell.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

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
    cells and the interactions of two cells cancel within the block instead of adding noise.

    Args:
        cells: Number of cells s per side.
        count: Even number of masks, at most `full_block(cells)`. In a smaller block the masks are
            pairs of complements, but cells are not balanced against each other.
        shift: Shift of all masks.
        generator: Random generator.

    Reference:
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
    row, column = (int(place * most) for place, most in zip(places, shifts, strict=True))
    return row, column
