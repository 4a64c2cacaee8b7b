"""Models in tests whose maps by RISE have a known limit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from preceptor.saliency.rise import RiseResult, rise

Model = Callable[[Tensor], Tensor]
ONE = torch.tensor([1])


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's correlation of two maps."""
    return float(np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1])


def analytic(seed: int, bias: float = 2.0, cells: int = 7, interactions: float = 1.0) -> Model:
    """One logit: a quadratic function of the means of cells × cells patches, of a high mean."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(cells**2, generator=generator)
    pairs = interactions / cells * torch.randn(cells**2, cells**2, generator=generator)

    def model(images: Tensor) -> Tensor:
        patches = functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), cells).flatten(1)
        patches = patches - 0.5
        return (patches @ weight + ((patches @ pairs) * patches).sum(1) + bias)[:, None]

    return model


def toy(model: Model, **how: Any) -> RiseResult:
    """RISE of one white image of 28 × 28, where a patch mean is the mean of the mask there."""
    how = {"size": (7, 7), "batch_size": 1000} | how
    return rise(model, torch.ones(1, 1, 28, 28), ONE, **how)


@functools.cache
def limit(seed: int, bias: float, interactions: float = 1.0) -> Tensor:
    """The converged map of an analytic model."""
    model = analytic(seed, bias, interactions=interactions)
    return toy(model, max_masks=32_000, tolerance=0, seed=100).maps
