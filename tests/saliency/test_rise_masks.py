"""RISE's masks: against torch's own enlargement, and as a balanced design."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from preceptor.saliency.rise import (
    Block,
    balanced_block,
    full_block,
    ramps,
    random_block,
    render,
)


def enlarged(grid: Tensor, shift: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """One mask as published: enlarge (s, s) cells to s + 1 cells' pixels, cut out at the shift."""
    cells = len(grid)
    whole = [(cells + 1) * math.ceil(side / cells) for side in size]
    wide = functional.interpolate(
        grid[None, None].double(), size=whole, mode="bilinear", align_corners=False
    )[0, 0]
    return wide[shift[0] : shift[0] + size[0], shift[1] : shift[1] + size[1]]


def design(block: Block) -> Tensor:
    """(n, s²) the cells as −1 and 1."""
    return block.cells.flatten(1).double() * 2 - 1


sizes = st.tuples(st.integers(2, 40), st.integers(2, 40))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 9999), cells=st.integers(2, 9), size=sizes)
def test_masks_are_torchs_enlargement(seed: int, cells: int, size: tuple[int, int]) -> None:
    size = (max(size[0], cells), max(size[1], cells))
    rows, columns = ramps(size[0], cells), ramps(size[1], cells)
    assert [len(rows), len(columns)] == [math.ceil(side / cells) for side in size]
    block = random_block(cells, 6, (len(rows), len(columns)), torch.Generator().manual_seed(seed))
    found = render(block, rows, columns)
    assert found.shape == (6, *size)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    for mask, grid, (row, column) in zip(found, block.cells, block.shifts.tolist(), strict=True):
        expected = enlarged(grid, (row, column), size)
        torch.testing.assert_close(mask.double(), expected, atol=1e-5, rtol=0)


# Balance.


@pytest.mark.parametrize("cells", [2, 3, 4, 5, 7, 8])
def test_cells_are_balanced_one_by_one_and_two_by_two(cells: int) -> None:
    count = full_block(cells)
    assert count == 2 * min(2**power for power in range(12) if 2**power >= cells**2)
    for seed in range(5):
        block = balanced_block(cells, count, (0, 0), torch.Generator().manual_seed(seed))
        signs = design(block)
        assert signs.shape == (count, cells**2)
        assert signs.abs().unique().tolist() == [1]
        assert not signs.sum(0).any()
        assert torch.equal(signs.T @ signs, count * torch.eye(cells**2, dtype=torch.float64))
