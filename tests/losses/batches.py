"""Batches of the guided loss: logits, labels, saliency maps, map targets and weights."""

from __future__ import annotations

from typing import Any

import torch

NAN, INF = float("nan"), float("inf")


def batch(seed: int = 0, size: int = 6, classes: int = 3, grid: tuple[int, int] = (4, 5)) -> Any:
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    return (
        torch.randn(size, classes, **options),
        torch.randint(0, classes, (size,), generator=generator),
        torch.randn(size, *grid, **options),
        torch.rand(size, *grid, **options),
    )


def odd_batch(seed: int = 0) -> Any:
    """Maps without weight that hold NaN, constant ones, and non-finite ones with weight."""
    logits, labels, cam, maps = batch(seed, size=8)
    map_weight = torch.tensor([1, 0, 0.5, 2, 1, 1, 0, 1.0], dtype=torch.float64)
    maps[1] = NAN
    maps[3] = 0.7
    maps[4, 0, 0] = NAN
    maps[5, 1, 1] = INF
    maps[6, 0, 0] = -INF
    maps[7] = 0
    sample_weight = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    return logits, labels, cam, maps, map_weight, sample_weight
