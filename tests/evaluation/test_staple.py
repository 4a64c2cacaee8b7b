"""STAPLE against SimpleITK and against loops over pixels.

`staple_simpleitk.npz` holds masks of four annotators with simulated errors, and the result of
`SimpleITK.STAPLEImageFilter` with its defaults and foreground 1 (its version is in the file).
SimpleITK is no requirement of the tests, since it needs 260 MB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preceptor.data.merge_annotators import MERGES
from preceptor.evaluation.staple import staple

FIXTURE = Path(__file__).parent / "fixtures" / "staple_simpleitk.npz"


def simulated(annotators: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = rng.random((9, 11)) < 0.3
    return np.array(
        [
            np.where(truth, rng.random(truth.shape) < 0.8, rng.random(truth.shape) > 0.9)
            for _ in range(annotators)
        ]
    )


def slow(masks: np.ndarray, prior: np.ndarray, iterations: int) -> tuple[np.ndarray, list, list]:
    flat = masks.reshape(len(masks), -1)
    f = np.broadcast_to(prior, masks.shape[1:]).reshape(-1)
    p, q = [0.99999] * len(masks), [0.99999] * len(masks)

    def posterior() -> list[float]:
        found = []
        for pixel in range(flat.shape[1]):
            a, b = f[pixel], 1 - f[pixel]
            for person, said in enumerate(flat[:, pixel]):
                a *= p[person] if said else 1 - p[person]
                b *= 1 - q[person] if said else q[person]
            found.append(a / (a + b))
        return found

    w = posterior()
    for _ in range(iterations):
        for person, said in enumerate(flat):
            p[person] = sum(x for x, d in zip(w, said, strict=True) if d) / sum(w)
            q[person] = sum(1 - x for x, d in zip(w, said, strict=True) if not d) / sum(
                1 - x for x in w
            )
        w = posterior()
    return np.reshape(w, masks.shape[1:]), p, q


def test_probability_sensitivity_and_specificity_are_those_of_simpleitk() -> None:
    with np.load(FIXTURE) as stored:
        found = staple(stored["masks"])
        assert str(stored["version"]).startswith("2.5")
        np.testing.assert_allclose(found.probability, stored["probability"], atol=2e-6)
        np.testing.assert_allclose(found.sensitivity, stored["sensitivity"], atol=1e-6)
        np.testing.assert_allclose(found.specificity, stored["specificity"], atol=1e-6)


@pytest.mark.parametrize("spatial", [False, True])
def test_iterations_are_those_of_loops_over_pixels(spatial: bool) -> None:
    masks = simulated(3)
    prior = np.linspace(0.05, 0.9, masks[0].size).reshape(masks[0].shape) if spatial else 0.35
    found = staple(masks, prior, iterations=6, tolerance=0)
    w, p, q = slow(masks, np.asarray(prior), 6)
    np.testing.assert_allclose(found.probability, w, atol=1e-9)
    np.testing.assert_allclose(found.sensitivity, p, atol=1e-9)
    np.testing.assert_allclose(found.specificity, q, atol=1e-9)


def test_many_annotators_are_the_same_in_any_order() -> None:
    masks = simulated(70)
    order = np.random.default_rng(1).permutation(70)
    one, other = staple(masks), staple(masks[order])
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-6)
    np.testing.assert_allclose(one.sensitivity[order], other.sensitivity, atol=1e-6)


def test_merged_map_leaves_out_an_annotator_who_marks_at_random() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 40), bool)
    truth[10:25, 12:30] = True
    noise = rng.random((2, 40, 40)) < 0.5
    maps = np.array([truth, truth, *noise, truth & (rng.random((40, 40)) < 0.95)])
    merged = MERGES["staple"](maps.astype(np.uint8) * 255)
    assert ((merged >= 128) == truth).all()


@pytest.mark.parametrize("value", [0, 255])
def test_merged_map_of_equal_maps_is_the_map(value: int) -> None:
    for count in (1, 2, 3):
        maps = np.full((count, 4, 5), value, np.uint8)
        assert (MERGES["staple"](maps) == value).all()
    map_ = np.zeros((1, 4, 5), np.uint8)
    map_[0, 1:3, 2] = 200
    assert ((MERGES["staple"](map_) == 255) == (map_[0] > 0)).all()


@pytest.mark.parametrize("prior", [-0.1, 1.5, np.full((3, 3), 0.2)])
def test_a_prior_that_is_no_probability_of_each_pixel_is_refused(prior: object) -> None:
    with pytest.raises(ValueError, match="prior"):
        staple(simulated(2), prior)  # type: ignore[arg-type]
