"""Batches of the guided loss: logits, labels, saliency maps, map targets and weights."""

from __future__ import annotations

import math
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


def slow(name: str, one: list[float], other: list[float]) -> float:
    """One cell at a time, as the formulas are printed; `one` is the model's."""
    count = len(one)
    if name == "l2":
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))
    if name == "mse":
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / count
    if name == "l1":
        return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / count
    if name == "kl":
        total_p, total_q = sum(one) + 0.01 * count, sum(other) + 0.01 * count
        result = 0.0
        for a, b in zip(one, other, strict=True):
            p, q = (a + 0.01) / total_p, (b + 0.01) / total_q
            result += q * math.log(q / p)
        return result
    assert name == "dice", f"add the formula of {name}"
    overlap = sum(a * b for a, b in zip(one, other, strict=True))
    sizes = sum(a * a for a in one) + sum(b * b for b in other)
    return 1 - 2 * overlap / sizes if sizes else 0.0


def slow_distance(cam: torch.Tensor, grid: torch.Tensor, name: str) -> float:
    """`slow` after scaling to [0, 1]; constant maps are zeros."""
    pairs = []
    for cells in (cam.flatten().tolist(), grid.flatten().tolist()):
        low, high = min(cells), max(cells)
        pairs.append([(cell - low) / (high - low) if high > low else 0.0 for cell in cells])
    return slow(name, *pairs)
