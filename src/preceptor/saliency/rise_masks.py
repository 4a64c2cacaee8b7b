"""RISE's random masks: coarse cells on or off, enlarged bilinearly, shifted by parts of a cell.

A mask is two small products: R_y · cells · R_xᵀ, where R_y (H × s) holds, for a shift of the grid,
the bilinear weights of the s cells at every row, and R_x at every column. The shift moves the grid
by whole pixels within a cell, so there are as many R as a cell has pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# The plastic number: multiples of its inverse powers fill the square evenly (M. Roberts, 2018).
_PLASTIC = 1.32471795724474602596


def ramps(side: int, cells: int) -> Tensor:
    """The bilinear weights R of every shift along one axis.

    As published, s cells are enlarged to (s + 1) · ⌈side / s⌉ pixels, of which `side` are cut out
    from a random place within the first cell; beyond the outermost centres a cell keeps its value.

    Args:
        side: Pixels along the axis.
        cells: s ≥ 2 cells along it.

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
    """Masks before they are enlarged.

    Args:
        cells: (n, s, s) of 0 and 1.
        shifts: (2,) the shift of all of them along rows and columns, or (n, 2) one each; pixels.
    """

    cells: Tensor
    shifts: Tensor


def render(block: Block, rows: Tensor, columns: Tensor) -> Tensor:
    """The masks of a block at full size.

    Args:
        block: n masks.
        rows: (shifts, H, s) of `ramps`.
        columns: (shifts, W, s).

    Returns:
        (n, H, W) in [0, 1]; not contiguous where all share one shift.
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
    """The published masks: every cell on with probability ½, every mask with a shift of its own."""
    grids = torch.randint(0, 2, (count, cells, cells), generator=generator).float()
    moved = [torch.randint(0, most, (count,), generator=generator) for most in shifts]
    return Block(grids, torch.stack(moved, 1))


def full_block(cells: int) -> int:
    """Masks of a whole balanced block: 2 · (the next power of two ≥ s²), 128 for s = 7."""
    return 2 << (cells * cells - 1).bit_length()


def balanced_block(
    cells: int, count: int, shift: tuple[int, int], generator: torch.Generator
) -> Block:
    """A block of masks in which every cell, and every pair of cells, is on equally often.

    The rows of a Hadamard matrix, its columns drawn at random for the cells and turned over at
    random, and then the complement of every mask: a foldover, in the words of screening designs.
    Each mask by itself is uniformly random, so what is estimated is what random masks estimate. But
    the mean score, other cells, and interactions of two cells cancel within the block instead of
    adding noise.

    Args:
        cells: s.
        count: Even, at most `full_block(cells)`. Of a smaller block the masks are still pairs of
            complements, but cells are no longer balanced against each other.
        shift: Of all masks.
        generator: Of what is drawn.

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
    """The shift of the block `index`: successive ones fill all shifts evenly.

    Args:
        index: ≥ 0.
        start: In [0, 1)², drawn once.
        shifts: How many there are along rows and columns.

    Example:
        >>> [spread_shift(index, (0.5, 0.5), (32, 32)) for index in range(3)]
        [(16, 16), (8, 2), (0, 20)]
    """
    places = [(begin + index / _PLASTIC ** (axis + 1)) % 1 for axis, begin in enumerate(start)]
    row, column = (int(place * most) for place, most in zip(places, shifts, strict=True))
    return row, column
