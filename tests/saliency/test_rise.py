"""RISE: its formulas, its masks against torch's enlargement, and continued states."""

from __future__ import annotations

import itertools
import math
from typing import Any

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
    rise,
)
from tests.saliency.analytic_models import ONE, Model, analytic, correlation

# The formulas.


# The limit.


def all_masks(cells: int, side: int) -> Tensor:
    """Every mask that there is: all patterns of cells at all shifts, by torch's enlargement."""
    pixels = math.ceil(side / cells)
    whole = (cells + 1) * pixels
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=cells**2)))
    wide = functional.interpolate(
        patterns.view(-1, 1, cells, cells),
        size=(whole, whole),
        mode="bilinear",
        align_corners=False,
    )[:, 0]
    shifts = itertools.product(range(pixels), repeat=2)
    return torch.cat([wide[:, y : y + side, x : x + side] for y, x in shifts])


def score_of(model: Model, images: Tensor, score: str) -> Tensor:
    """Of the second class, whose logit this is."""
    logits = model(images)[:, 0].double()
    return logits.sigmoid() if score == "probability" else logits


@pytest.mark.parametrize(("cells", "score"), [(2, "probability"), (3, "logit")])
def test_both_estimators_converge_to_the_enumerated_map(cells: int, score: Any) -> None:
    model = analytic(3, 1.0, 4)
    image = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    masks = all_masks(cells, 8)
    scores = score_of(model, image * masks[:, None], score)
    masks = masks.double()
    mean = torch.einsum("n,nhw->hw", scores, masks) / len(masks) / 0.5
    both = torch.einsum("n,nhw->hw", scores - scores.mean(), masks - 0.5) / len(masks)
    # Up to scale and offset they are one map.
    torch.testing.assert_close(mean, 2 * both + scores.mean(), atol=1e-6, rtol=0)

    how: dict[str, Any] = {"cells": cells, "score": score, "tolerance": 0, "batch_size": 1000}
    for estimator, expected, count in (("default", both, 4000), ("published", mean, 16_000)):
        how |= {"estimator": estimator, "max_masks": count}
        full = rise(model, image, ONE, size="image", **how)
        assert correlation(full.maps[0], expected) > (0.998 if estimator == "default" else 0.98)
        # Scale and offset too.
        gap = (full.maps[0] - expected).abs().max() / (expected.max() - expected.min())
        assert gap < (0.03 if estimator == "default" else 0.2)
        how |= {"max_masks": 400}
        full, grid = (rise(model, image, ONE, size=size, **how) for size in ("image", (4, 4)))
        pooled = functional.adaptive_avg_pool2d(full.maps, 4)
        torch.testing.assert_close(grid.maps, pooled, atol=1e-5, rtol=0)


def test_the_mean_score_and_interactions_of_two_cells_cancel_in_every_block() -> None:
    """With one shift alone, the map of a quadratic function of the cells is exact at once."""
    generator = torch.Generator().manual_seed(0)
    weight, pairs = torch.randn(49, generator=generator), torch.randn(49, 49, generator=generator)

    def quadratic(images: Tensor) -> Tensor:
        centred = images.flatten(1) - 0.5
        return (centred @ weight + ((centred @ pairs) * centred).sum(1) + 1000)[:, None]

    found = rise(
        quadratic, torch.ones(1, 1, 7, 7), ONE, score="logit", max_masks=3 * 128, size="image"
    )
    unit = torch.eye(7)[:, None]
    ramp = functional.interpolate(unit, size=8, mode="linear", align_corners=False)[:, 0, :7].T
    slopes = ramp.T @ weight.view(7, 7) @ ramp  # of the score by each cell
    torch.testing.assert_close(found.maps[0], ramp @ (slopes / 4) @ ramp.T, atol=1e-4, rtol=0)
    assert found.error < 1e-6


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"images": torch.ones(3, 28, 28)}, r"images \(3, 28, 28\)"),
        ({"classes": torch.ones(2).long()}, r"classes \(2,\)"),
        ({"images": torch.ones(0, 1, 28, 28), "classes": torch.ones(0).long()}, "images is empty"),
        ({"images": torch.ones(1, 1, 28, 28).byte()}, "uint8; they must be normalized floats"),
        ({"images": torch.ones(1, 1, 28, 6)}, "cells is 7"),
        ({"max_masks": 1}, "max_masks 1"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"estimator": "mean"}, "estimator 'mean' is not one of default, published"),
        ({"score": "entropy"}, "score 'entropy'"),
        ({"size": (0, 4)}, r"size \(0, 4\)"),
        ({"classes": torch.tensor([2])}, "classes from 2 to 2; the model has classes 0 to 1"),
    ],
)
def test_what_makes_no_sense(how: dict[str, Any], message: str) -> None:
    images, classes = how.pop("images", torch.ones(1, 1, 28, 28)), how.pop("classes", ONE)
    with pytest.raises(ValueError, match=message):
        rise(analytic(0), images, classes, **how)


# Masks.


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
