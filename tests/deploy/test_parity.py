"""Differences between a model and its export, on outputs made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.deploy.export import (
    CheckImages,
    Outputs,
    Parity,
    map_difference,
    measure,
    synthetic_images,
)
from preceptor.deploy.prediction import normalized


def outputs(raw: NDArray[np.float32]) -> Outputs:
    return Outputs(np.full((len(raw), 2), 0.5, np.float32), normalized(raw), raw)


def test_maps_are_compared_after_normalization() -> None:
    raw = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    other = raw.copy()
    other[1, 2, 2] += 0.5 * (raw[1].max() - raw[1].min())
    expected = float(np.abs(normalized(raw) - normalized(other)).max())
    assert map_difference(outputs(raw), outputs(other)) == pytest.approx(expected)
    assert map_difference(outputs(raw), outputs(raw * 3 + 1)) < 1e-6


def test_a_nearly_constant_map_is_compared_on_the_scale_of_its_values() -> None:
    raw = np.full((1, 2, 2), 100, np.float32)
    raw[0, 0, 0] += 0.01  # normalized, a rounding error of 1e-4 would be 1e-2
    other = raw.copy()
    other[0, 1, 1] += 1e-4
    assert np.abs(normalized(raw) - normalized(other)).max() > 5e-3
    assert map_difference(outputs(raw), outputs(other)) == pytest.approx(1e-4, rel=0.2)
    assert map_difference(outputs(raw), outputs(other + 1)) > 0.9


def test_maps_of_zeros_are_equal_and_maps_of_another_grid_are_not() -> None:
    zeros = outputs(np.zeros((2, 3, 3), np.float32))
    assert map_difference(zeros, zeros) == 0
    assert map_difference(zeros, outputs(np.zeros((2, 4, 4), np.float32))) == math.inf


def test_nan_is_no_parity() -> None:
    images = synthetic_images(ImageFormat(8), 20)

    def good(batch: NDArray[np.uint8]) -> Outputs:
        return outputs(np.arange(4 * len(batch), dtype=np.float32).reshape(-1, 2, 2))

    def bad(batch: NDArray[np.uint8]) -> Outputs:
        found = good(batch)
        return found._replace(map=np.where(len(batch) == 1, np.nan, found.map))  # type: ignore[arg-type]

    assert measure(good, good, images, 1).within_tolerance
    assert not measure(good, bad, images, 1).within_tolerance
    assert not Parity(1, math.nan, None, 0).within_tolerance


def test_each_set_with_both_classes_has_an_auc() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1, 1])
    sets = np.array(["val-a"] * 4 + ["val-b"] * 2 + ["val-c"], object)
    before = np.array([0.1, 0.2, 0.8, 0.9, 0.3, 0.7, 0.5], np.float32)
    after = np.array([0.1, 0.85, 0.8, 0.9, 0.3, 0.7, 0.5], np.float32)
    images = CheckImages(lambda which: which, np.arange(7), labels, sets)  # type: ignore[arg-type,return-value]

    def scored(scores: NDArray[np.float32]) -> object:
        return lambda which: Outputs(np.stack([1 - scores[which], scores[which]], 1), None, None)

    found = measure(scored(before), scored(after), images, 1)  # type: ignore[arg-type]
    assert found.aucs == {"val-a": (1.0, 0.75), "val-b": (1.0, 1.0)}  # val-c has one class
    assert (found.maps, found.most_probable, found.images) == (None, 1, 7)
    assert found.decisions is None

    low = measure(scored(before), scored(after), images, 1, 0.15)  # type: ignore[arg-type]
    assert low.decisions == 0
    high = measure(scored(before), scored(after), images, 1, 0.8000000001)  # type: ignore[arg-type]
    assert (high.decisions, high.most_probable) == (1, 1)
