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
    """Bilinear weights R of every shift along one axis.

    As published, s cells are upsampled to (s + 1) · ⌈side / s⌉ pixels, of which `side` are cropped
    from a random offset within the first cell; beyond the outermost centers a cell keeps its value.

    Args:
        side: Number of pixels along the axis.
        cells: Number of cells s ≥ 2 along the axis.

    Returns:
        (⌈side / s⌉, side, s); each row sums to 1.

    Reference:
        V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
        Models", BMVC 2018.

    Example:
        >>> ramps(2, 2).shape
        torch.Size([1, 2, 2])
    """
    pixels = math.ceil(side / cells)
    place = torch.arange(side)[None] + torch.arange(pixels)[:, None]
    # Centre of each pixel in units of cells, from the centre of the first cell.
    centre = ((place + 0.5) * cells / ((cells + 1) * pixels) - 0.5).clamp(0, cells - 1)
    left = centre.floor().long().clamp(max=cells - 2)
    share = (centre - left)[..., None]
    weights = torch.zeros(pixels, side, cells)
    weights.scatter_(2, left[..., None], 1 - share)
    return weights.scatter_add_(2, left[..., None] + 1, share)


class Block(NamedTuple):
    """Masks before upsampling.

    Args:
        cells: (n, s, s) of 0 and 1.
        shifts: Shifts along rows and columns in pixels: (2,) common to all masks, or (n, 2).
    """

    cells: Tensor
    shifts: Tensor


def render(block: Block, rows: Tensor, columns: Tensor) -> Tensor:
    """Masks of a block at full size.

    Args:
        block: Block of n masks.
        rows: (shifts, H, s) weights from `ramps` along the rows.
        columns: (shifts, W, s) weights from `ramps` along the columns.

    Returns:
        (n, H, W) in [0, 1]; not contiguous if all masks share one shift.
    """
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
    """Shift of the block `index` in a low-discrepancy sequence over all shifts.

    Args:
        index: Number of the block, ≥ 0.
        start: Start of the sequence in [0, 1)², drawn once.
        shifts: Numbers of shifts along rows and columns.

    Example:
        >>> [spread_shift(index, (0.5, 0.5), (32, 32)) for index in range(3)]
        [(16, 16), (8, 2), (0, 20)]
    """
    places = [(begin + index / _PLASTIC ** (axis + 1)) % 1 for axis, begin in enumerate(start)]
    row, column = (int(place * most) for place, most in zip(places, shifts, strict=True))
    return row, column
