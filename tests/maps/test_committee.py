"""The mean map of a committee, against a loop over images and cells."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from preceptor.errors import InputError
from preceptor.maps.committee import mean_store
from preceptor.maps.store import MapStore, StoreInfo, read_store, write_store

INFO = StoreInfo("run-0", "cam", "letterbox", 64, ("real", "fake"), {"cam_class": "label"})


def member(seed: int, count: int = 6, **values: Any) -> MapStore:
    generator = np.random.default_rng(seed)
    maps = generator.random((count, 3, 4)).astype(np.float16)
    share = generator.random(count).astype(np.float32)
    store = MapStore(
        replace(INFO, teacher=f"run-{seed}"),
        np.array([f"{row}.png" for row in range(count)], object),
        maps,
        (np.arange(count) % 2).astype(np.int32),
        share,
        np.stack([share, 1 - share], axis=1),
    )
    return replace(store, **values)


def slow_agreement(stores: list[MapStore], row: int) -> float:
    values = []
    for one, other in combinations(stores, 2):
        a, b = (store.maps[row].astype(np.float64).ravel() for store in (one, other))
        constant = a.min() == a.max() or b.min() == b.max()
        values.append(0.0 if constant else float(stats.pearsonr(a, b).statistic))
    return sum(values) / len(values)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_the_mean_is_the_loop(members: int) -> None:
    stores = [member(seed) for seed in range(members)]
    found = mean_store(stores)
    for row in range(6):
        for i, j in np.ndindex(3, 4):
            cells = [float(store.maps[row, i, j]) for store in stores]
            assert found.maps[row, i, j] == pytest.approx(sum(cells) / members, abs=1e-3)
        scores = [float(store.scores[row]) for store in stores]
        assert found.scores[row] == pytest.approx(sum(scores) / members, rel=1e-6)
        assert found.agreement is not None
        assert found.agreement[row] == pytest.approx(slow_agreement(stores, row), abs=1e-5)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[:, 0], found.scores, rtol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-6)
    assert found.maps.dtype == np.float16
    assert found.scores.dtype == found.probabilities.dtype == found.agreement.dtype == np.float32
    assert found.info == replace(INFO, teacher="+".join(f"run-{seed}" for seed in range(members)))
    np.testing.assert_array_equal(found.classes, stores[0].classes)


def test_constant_maps_agree_with_nothing() -> None:
    stores = [member(seed) for seed in range(3)]
    stores[0].maps[1] = 0.0
    stores[1].maps[2] = np.nan
    for store in stores:
        store.maps[3] = 0.5
    found = mean_store(stores)
    assert found.agreement is not None
    assert np.isfinite(found.agreement).all()
    assert found.agreement[1] == pytest.approx(slow_agreement(stores, 1), abs=1e-5)
    only = stats.pearsonr(stores[0].maps[2].ravel(), stores[2].maps[2].ravel()).statistic
    assert found.agreement[2] == pytest.approx(only / 3, abs=1e-3)
    assert found.agreement[3] == 0


def test_equal_members_agree_and_opposite_ones_do_not() -> None:
    one = member(0)
    same = mean_store([one, one])
    assert same.agreement is not None
    np.testing.assert_allclose(same.agreement, 1, atol=1e-6)
    np.testing.assert_array_equal(same.maps, one.maps)
    apart = mean_store([one, replace(one, maps=(1 - one.maps).astype(np.float16))])
    assert apart.agreement is not None
    assert (apart.agreement < -0.99).all()


def test_a_committee_of_one_has_no_agreement() -> None:
    one = member(0)
    found = mean_store([one])
    assert found.agreement is None
    np.testing.assert_array_equal(found.maps, one.maps)
    assert found.info == one.info


def test_probabilities_need_all_members() -> None:
    found = mean_store([member(0), member(1, probabilities=None)])
    assert found.probabilities is None
    assert found.agreement is not None


def test_the_error_is_the_mean_of_the_members() -> None:
    errors = np.random.default_rng(0).random((3, 6)).astype(np.float32)
    info = replace(INFO, method="rise", settings={"tolerance": 0.4})
    stores = [member(seed, error=errors[seed], info=info) for seed in range(3)]
    found = mean_store(stores)
    assert found.error is not None
    assert found.error.dtype == np.float32
    for row in range(6):
        mean = sum(float(errors[seed, row]) for seed in range(3)) / 3
        assert found.error[row] == pytest.approx(mean, rel=1e-6)
        assert found.settled[row] == (mean <= 0.4)
    assert 0 < found.settled.sum() < 6
    assert mean_store([stores[0], member(1)]).error is None
    assert mean_store([member(0), member(1)]).error is None


def test_it_is_written_and_read_as_any_store(tmp_path: Path) -> None:
    made = mean_store([member(0), member(1)])
    for seed in (0, 1):
        write_store(tmp_path / str(seed), member(seed))
    again = mean_store([read_store(tmp_path / str(seed)) for seed in (0, 1)])
    write_store(tmp_path / "both", again)
    found = read_store(tmp_path / "both")
    for name in ("maps", "scores", "probabilities", "agreement", "paths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"maps": np.zeros((6, 4, 3), np.float16)}, "different grids: 3 × 4 .*, and 4 × 3"),
        ({"info": replace(INFO, side=32)}, "different grids: .* at 64 px, and .* at 32 px"),
        ({"info": replace(INFO, fit="crop")}, "different grids: .* letterbox .* crop"),
        ({"info": replace(INFO, classes=("fake", "real"))}, "have different classes"),
        (
            {"paths": np.array([f"{k}.png" for k in (1, 0, 2, 3, 4, 5)], object)},
            "in the order of images",
        ),
        ({"classes": np.array([0, 1, 0, 0, 0, 1], np.int32)}, r"for 1 images, the first 3\.png"),
    ],
)
def test_what_cannot_be_averaged_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        mean_store([member(0), member(1), member(2, **values)])
    with pytest.raises(InputError, match="in the order of images: 6 and 5 images"):
        mean_store([member(0), member(1, count=5)])


def test_nothing_to_average() -> None:
    with pytest.raises(InputError, match="no map store"):
        mean_store([])
