"""RISE: how sure a map is, and when it stops."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from preceptor.saliency.rise import rise
from tests.saliency.analytic_models import ONE, analytic, correlation, limit, toy


@pytest.mark.parametrize(
    ("estimator", "counts", "bias"),
    [
        ("default", (384, 768, 1536), 1.0),
        ("default", (384, 768), 3.0),
        ("published", (1536, 3072), 3.0),
    ],
)
def test_the_error_is_that_of_the_map(estimator: Any, counts: tuple[int, ...], bias: float) -> None:
    """Over 32 maps or more the estimate is 0.8 to 3 times 1 − the correlation with a converged map.

    Above 1, since spread shifts make blocks differ more than chance would, and since of the noise
    the part along the map does no harm.
    """
    models = [analytic(seed, bias) for seed in (0, 1)]
    medians = []
    for count in counts:
        estimated, true = [], []
        for model, seed in itertools.product((0, 1), range(8)):
            how = {"max_masks": count, "tolerance": 0, "seed": seed, "estimator": estimator}
            found = toy(models[model], **how)
            estimated.append(float(found.error))
            true.append(1 - correlation(found.maps, limit(model, bias)))
        assert 0.8 < np.median(np.array(estimated) / np.array(true)) < 3
        medians.append((np.median(estimated), np.median(true)))
    # More masks, less error: half of it for twice as many.
    for (before, harm), (after, less) in itertools.pairwise(medians):
        assert after < 0.7 * before
        assert less < 0.7 * harm


def hash_of(images: Tensor) -> Tensor:
    """A number that depends on every pixel, and on nothing that could be learnt."""
    return (1e4 * (images * torch.arange(1.0, 785).view(28, 28)).sum((1, 2, 3))).sin()[:, None]


def test_what_ignores_its_input_or_is_noise_of_it_never_settles() -> None:
    constant = toy(lambda images: torch.full((len(images), 1), 0.3), max_masks=1000)
    assert (int(constant.masks_used), float(constant.error)) == (7 * 128, 1.0)
    for estimator in ("default", "published"):
        errors = []
        for seed in range(10):
            found = toy(hash_of, max_masks=1000, seed=seed, estimator=estimator)
            assert int(found.masks_used) == 7 * 128
            errors.append(float(found.error))
        assert min(errors) > 0.25
        assert np.median(errors) > 0.5


@pytest.mark.parametrize(("size", "tolerance"), [((2, 2), 0.2), ((3, 3), 0.05)])
def test_noise_does_not_settle_on_a_small_grid(size: tuple[int, int], tolerance: float) -> None:
    """Few cells agree by chance: without a rule for it, a quarter of maps of 2 × 2 cells at 0.2."""
    images = 1 + torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = rise(
        hash_of,
        images,
        torch.ones(200, dtype=torch.int64),
        max_masks=900,
        tolerance=tolerance,
        size=size,
        batch_size=2000,
    )
    assert int((found.error < tolerance).sum()) <= 2


def test_scores_that_are_not_finite_never_settle_and_harm_no_other() -> None:
    model = analytic(0)

    def sometimes(images: Tensor) -> Tensor:
        return torch.where(images[:, :1, 0, 0] > 5, torch.nan, model(images))

    images = torch.ones(2, 1, 28, 28)
    images[1] = 20
    found = rise(sometimes, images, torch.tensor([1, 1]), max_masks=600)
    alone = rise(sometimes, images[:1], ONE, max_masks=600)
    assert found.error[1] == 1
    assert found.masks_used.tolist() == [384, 512]
    torch.testing.assert_close(found.maps[0], alone.maps[0])


@pytest.mark.parametrize("max_masks", [2, 3, 7, 20, 100, 500])
@pytest.mark.parametrize("estimator", ["default", "published"])
def test_never_more_masks_than_asked_for(max_masks: int, estimator: Any) -> None:
    seen: list[int] = []

    def model(images: Tensor) -> Tensor:
        seen.append(len(images))
        return analytic(0)(images)

    found = toy(model, max_masks=max_masks, tolerance=0, estimator=estimator)
    assert sum(seen) == int(found.masks_used) <= max_masks
    assert int(found.masks_used) > 0.7 * max_masks - 2
    assert torch.isfinite(found.maps).all()
    if max_masks < 6:  # not three blocks of two
        assert float(found.error) == 1
