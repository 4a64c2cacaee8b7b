"""The image cache: the same bits as decoding."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preceptor.data.cache import open_images
from preceptor.data.cache_view import MappedImages
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import MAP_SIDE
from tests.data.cached_images import ROWS, SIZES, hidden, make, shards_of


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make(tmp_path / "data")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
def test_the_cache_holds_what_decoding_gives(
    tmp_path: Path, manifest: Manifest, fit: Any, channels: int
) -> None:
    options: dict[str, Any] = {"side": 24, "fit": fit, "channels": channels}
    plain = open_images(manifest, **options, cache_dir=None)
    built = open_images(manifest, **options, cache_dir=tmp_path / "c", threads=3)
    again = open_images(manifest, **options, cache_dir=tmp_path / "c")
    for mapped in (built, again):
        assert isinstance(mapped, MappedImages)
        canvases = mapped.canvases(ROWS)
        assert canvases.shape == (6, 24, 24, channels)
        np.testing.assert_array_equal(canvases, plain.canvases(ROWS))
        maps = mapped.human_maps(ROWS)
        assert maps.shape == (6, MAP_SIDE, MAP_SIDE)
        np.testing.assert_array_equal(maps, plain.human_maps(ROWS))
        assert [bool(one.any()) for one in maps] == [False, True, True, True, False, False]
        np.testing.assert_array_equal(mapped.sizes, plain.sizes)
    upright = [(20, 64) if index == 2 else size for index, size in enumerate(SIZES)]
    assert plain.sizes.tolist() == [list(size) for size in upright]
    assert len(shards_of(tmp_path / "c")) == 2  # images and maps
    assert hidden(tmp_path / "c") == []


def test_no_maps_at_all(tmp_path: Path, manifest: Manifest) -> None:
    bare = Manifest(manifest.table.assign(saliency=""), manifest.root)
    images = open_images(bare, side=16, cache_dir=tmp_path / "c")
    assert not images.human_maps(ROWS).any()


def test_formats_have_shards_of_their_own_and_share_the_maps(
    tmp_path: Path, manifest: Manifest
) -> None:
    def kinds(**options: Any) -> dict[str, int]:
        open_images(manifest, **({"side": 16, "cache_dir": tmp_path / "c"} | options))
        return Counter(one.parent.name.rpartition("-v")[0] for one in shards_of(tmp_path / "c"))

    first = {"16-squash-3": 1, "maps-128": 1}
    assert kinds() == first
    assert kinds() == first
    assert kinds(side=17) == first | {"17-squash-3": 1}
    others = {"17-squash-3": 1, "16-crop-3": 1, "16-squash-1": 1}
    kinds(fit="crop")
    assert kinds(channels=1) == first | others
    for changed, more in (("0.png", "16-squash-3"), ("map4.png", "maps-128")):
        file = manifest.root / changed
        Image.new("L", (33, 47), 90).save(file)
        os.utime(file, ns=(1, 1))
        first[more] += 1
        assert kinds() == first | others


def test_a_changed_image_is_seen(tmp_path: Path, manifest: Manifest) -> None:
    open_images(manifest, side=16, cache_dir=tmp_path / "c")
    Image.new("RGB", SIZES[0], (9, 8, 7)).save(manifest.root / "0.png")
    os.utime(manifest.root / "0.png", ns=(1, 1))
    after = open_images(manifest, side=16, cache_dir=tmp_path / "c")
    assert (after.canvases(np.array([0])) == [9, 8, 7]).all()
