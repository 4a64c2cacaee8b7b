"""Distances against scikit-learn, and the choice of their kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance, LedoitWolf

from preceptor.deploy.calibrate import CHANGES, changed_copies, choose_distance, fit_gaussians
from preceptor.metrics.reliability import ledoit_wolf


@pytest.mark.parametrize(("rows", "features"), [(200, 12), (30, 80), (6, 3)])
def test_shrinkage_is_that_of_scikit_learn(rows: int, features: int) -> None:
    generator = np.random.default_rng(rows)
    values = generator.normal(size=(rows, features)) @ generator.normal(size=(features, features))
    values -= values.mean(0)
    expected = LedoitWolf(assume_centered=True).fit(values)
    covariance, share = ledoit_wolf(values)
    np.testing.assert_allclose(covariance, expected.covariance_, rtol=1e-10, atol=1e-12)
    assert share == pytest.approx(expected.shrinkage_, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "rows", "tolerance"), [(LedoitWolf, 300, 1e-4), (EmpiricalCovariance, 20_000, 0.01)]
)
def test_distances_are_those_of_scikit_learn(kind: Any, rows: int, tolerance: float) -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [rows, rows // 2])
    mixed = generator.normal(size=(len(labels), 4)) @ generator.normal(size=(4, 4))
    features = (mixed + labels[:, None] * 3).astype(np.float32)
    means = np.stack([features[labels == one].mean(0, np.float64) for one in (0, 1)])
    fitted = kind(assume_centered=True).fit(features - means[labels])
    other = (generator.normal(size=(50, 4)) * 4).astype(np.float32)
    squares = [fitted.mahalanobis(other - mean) for mean in means]
    found = fit_gaussians(features, labels).distances(other)
    np.testing.assert_allclose(found, np.sqrt(np.min(squares, 0)), tolerance)


def test_the_kind_that_tells_changed_copies_is_chosen() -> None:
    near, far = np.arange(10.0), np.arange(10.0) + 20
    for better in ("mahalanobis", "energy"):
        copies = {one: far if one == better else near for one in ("mahalanobis", "energy")}
        chosen, aucs = choose_distance(
            {"mahalanobis": near, "energy": near}, {"blur": copies, "noise": copies}
        )
        assert chosen == better
        assert aucs[chosen] == {"blur": 1.0, "noise": 1.0}
    same = {"mahalanobis": near, "energy": near}
    assert choose_distance(same, {"blur": same})[0] == "mahalanobis"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(40, 56), (8, 9), (3, 5), (1, 1)])
def test_changed_copies_are_images_of_any_size(change: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    (first,), (again,) = (list(changed_copies([pixels], change)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    np.testing.assert_array_equal(first, again)
    if change == "tiles" and size == (40, 56):
        assert sorted(first.ravel()) == sorted(pixels.ravel())
    if min(size) > 1:
        assert (first.shape != pixels.shape) or (first != pixels).any()
