"""A Teacher's probabilities find their images and their classes by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preceptor.errors import InputError
from preceptor.maps.soft_labels import soft_targets
from preceptor.maps.store import MapStore, StoreInfo, write_store

NAMES = np.array(["a/1.png", "a/2.png", "b/1.png", "b/2.png"], object)


def write(
    folder: Path, names: list[str], classes: tuple[str, ...], values: list[list[float]] | None
) -> None:
    count = len(names)
    info = StoreInfo("t", "cam", "squash", 32, classes, {})
    maps, zeros = np.zeros((count, 2, 2), np.float16), np.zeros(count)
    write_store(
        folder,
        MapStore(
            info,
            np.array(names, object),
            maps,
            zeros.astype(np.int32),
            zeros.astype(np.float32),
            None if values is None else np.array(values, np.float32),
        ),
    )


def test_images_and_classes_are_found_by_name(tmp_path: Path) -> None:
    values = [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [1, 0, 0]]
    write(tmp_path, ["b/2.png", "elsewhere.png", "a/1.png"], ("red", "none", "blue"), values)
    found = soft_targets(tmp_path, NAMES, ("blue", "none", "red"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], np.float32([0, 0, 1]))
    np.testing.assert_array_equal(found[3], np.float32([0.7, 0.2, 0.1]))
    assert np.isnan(found[1:3]).all()


def test_what_cannot_teach_is_refused(tmp_path: Path) -> None:
    one = [[0.5, 0.5]]
    with pytest.raises(InputError, match="is not a map store"):
        soft_targets(tmp_path, NAMES, ("real", "fake"))
    write(tmp_path, ["a/1.png"], ("real", "fake"), None)
    with pytest.raises(InputError, match="has no probabilities"):
        soft_targets(tmp_path, NAMES, ("real", "fake"))
    write(tmp_path, ["a/1.png"], ("real", "forged"), one)
    with pytest.raises(InputError, match=r"has the classes \['real', 'forged'\], and the run has"):
        soft_targets(tmp_path, NAMES, ("real", "fake"))
    write(tmp_path, ["elsewhere.png"], ("real", "fake"), one)
    with pytest.raises(InputError, match="contains none of the 4 training images"):
        soft_targets(tmp_path, NAMES, ("real", "fake"))
