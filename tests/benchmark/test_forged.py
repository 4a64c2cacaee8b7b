"""Folders of forged photographs: manifest, files, seeds and failures."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from preceptor.benchmark.forged import (
    COLUMNS,
    PHOTOGRAPHS,
    draw_areas,
    draw_pools,
    write_draws,
    write_forged,
)
from preceptor.benchmark.forgeries import (
    PRESETS,
    STAMP_SHAPE,
    ForgedSettings,
    Pixels,
    Strengths,
    is_gray,
)
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_forged(tmp_path_factory.mktemp("forged") / "tiny", TINY, seed=0).parent


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "manifest.csv", keep_default_na=False)


def pixels(path):
    return np.asarray(Image.open(path))


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_manifest_passes_the_librarys_own_checks(folder):
    manifest = Manifest.read(folder / "manifest.csv")
    assert manifest.classes == ["authentic", "forged"]
    assert manifest.eval_splits("val") == ["val", "val-noshort"]
    assert manifest.eval_splits("test") == ["test-seen", "test-unseen"]


def test_the_table(folder, table):
    assert tuple(table.columns) == COLUMNS
    assert table.split.value_counts(sort=False).to_dict() == {
        "train": 48,
        "val": 24,
        "val-noshort": 24,
        "test-seen": 24,
        "test-unseen": 24,
    }
    assert (table.annotated == 1).all()
    assert ((table.saliency != "") == (table.label == "forged")).all()
    for split, rows in table.groupby("split"):
        kinds = TINY.unseen_kinds if split == "test-unseen" else TINY.kinds
        counts = rows.source.value_counts()
        assert counts["authentic"] == len(rows) // 2
        assert {kind: counts[kind] for kind in kinds} == dict.fromkeys(kinds, len(rows) // 6)
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert written == set(table.path) | set(table.saliency) - {""}


def test_pixels_outside_the_map_are_the_photographs_own(folder, table, photographs):
    def is_cut_from(photograph, image, outside):
        height, width = photograph.shape[0] - 31, photograph.shape[1] - 31
        # Every eighth pixel narrows the places down, then all of them decide.
        possible = np.ones((height, width), bool)
        for row, column in np.argwhere(outside)[::8]:
            starts = photograph[row : row + height, column : column + width]
            possible &= (starts == image[row, column]).all(axis=2)
            if possible.sum() < 10:
                break
        return any(
            (photograph[top : top + 32, left : left + 32] == image)[outside].all()
            for top, left in np.argwhere(possible)
        )

    rows = table[table.split.isin(["val-noshort", "test-seen", "test-unseen"])]
    for row in rows.itertuples():
        image = pixels(folder / row.path)
        region = pixels(folder / row.saliency) if row.saliency else np.zeros((32, 32))
        photograph = photographs[row.group]
        assert is_cut_from(photograph, image, region == 0), row.path
        if row.saliency:
            assert not is_cut_from(photograph, image, np.ones((32, 32), bool)), row.path


def test_photographs_are_apart_by_kind_of_split(table):
    table = table.assign(photograph=table.group.str.split("/").str[0])
    kinds = table.groupby(table.split.str.split("-").str[0])
    groups = {kind: set(rows.group) for kind, rows in kinds}
    assert not groups["train"] & groups["val"]
    photographs = table.groupby("split").photograph.agg(set)
    assert photographs["val"] <= photographs["train"]
    tests = photographs["test-seen"] | photographs["test-unseen"]
    assert not photographs["train"] & photographs["val-noshort"]
    assert not photographs["train"] & tests
    assert not photographs["val-noshort"] & tests


def test_the_stamp_goes_with_the_label_in_train_and_val_only(tmp_path):
    stamped = TINY.model_copy(update={"train": 400, "stamp_rate": 0.9})
    with_stamp = write_forged(tmp_path / "with", stamped, 0).parent
    plain = stamped.model_copy(update={"stamp_strength": 0.0})
    without = write_forged(tmp_path / "without", plain, 0).parent
    table = pd.read_csv(with_stamp / "manifest.csv")
    table["stamped"] = [
        (with_stamp / path).read_bytes() != (without / path).read_bytes() for path in table.path
    ]
    rates = table.groupby(["split", "label"]).stamped.mean()
    assert rates["train", "forged"] == pytest.approx(0.9, abs=0.06)
    assert rates["train", "authentic"] == pytest.approx(0.1, abs=0.06)
    assert rates["val", "forged"] > rates["val", "authentic"]
    for split in ("val-noshort", "test-seen", "test-unseen"):
        assert rates[split].max() == 0
    for path in table.path[table.stamped]:
        rows, columns = np.nonzero((pixels(with_stamp / path) != pixels(without / path)).any(2))
        assert rows.min() >= 26
        assert columns.min() >= 19


def test_a_moving_stamp_leaves_maps_and_content_as_they_are(tmp_path):
    moving = PRESETS["spots"].model_copy(
        update={"train": 96, "val": 24, "val_noshort": 8, "test_seen": 8, "test_unseen": 8}
        | {"stamp_rate": 0.8}
    )
    corner = moving.model_copy(update={"stamp_place": "corner"})
    plain = corner.model_copy(update={"stamp_strength": 0.0})
    folders = {
        name: write_forged(tmp_path / name, settings, 0).parent
        for name, settings in (("corner", corner), ("moving", moving), ("plain", plain))
    }
    for name in ("corner", "moving"):
        assert contents(folders[name] / "maps") == contents(folders["plain"] / "maps")
    table = pd.read_csv(folders["moving"] / "manifest.csv", keep_default_na=False)
    assert table.equals(pd.read_csv(folders["corner"] / "manifest.csv", keep_default_na=False))
    places = []
    for row in table.itertuples():
        changed = (pixels(folders["moving"] / row.path) != pixels(folders["plain"] / row.path)).any(
            axis=2
        )
        in_corner = pixels(folders["corner"] / row.path) != pixels(folders["plain"] / row.path)
        # The same crops are stamped at both settings of the place.
        assert changed.any() == in_corner.any()
        if row.split not in ("train", "val"):
            assert not changed.any()
        elif changed.any():
            where = np.argwhere(changed)
            places.append(tuple(where.min(axis=0)))
            assert (np.ptp(where, axis=0) < STAMP_SHAPE).all()
            if row.saliency:
                region = pixels(folders["moving"] / row.saliency)
                # One pixel around the stamp is free as well.
                around = ndimage.binary_dilation(changed, np.ones((3, 3)))
                assert not region[around].any()
    assert len(set(places)) > 0.8 * len(places) > 40


# Seeds, folders, failures


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    again = write_forged(tmp_path / "again", TINY, seed=0).parent
    assert contents(again) == contents(folder)


def test_another_seed_draws_other_photographs_for_training(tmp_path, table):
    draws = [frozenset(area.group for area in draw_areas(32, seed)["train"]) for seed in range(10)]
    assert len(set(draws)) >= 9
    other = pd.read_csv(write_forged(tmp_path / "other", TINY, seed=1))
    assert set(other.group[other.split == "train"]) != set(table.group[table.split == "train"])


def test_a_larger_split_begins_with_the_smaller_one(folder, tmp_path):
    larger = write_forged(tmp_path / "larger", TINY.model_copy(update={"train": 60}), 0).parent
    images = contents(folder / "images" / "train")
    assert images.items() <= contents(larger / "images" / "train").items()


def test_a_complete_folder_is_used_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_forged(folder, TINY, seed=0) == folder / "manifest.csv"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    record = json.loads((folder / "settings.json").read_text())
    assert record["seed"] == 0
    assert ForgedSettings.model_validate(record["settings"]) == TINY


def test_a_folder_with_something_else_is_refused_and_left_alone(folder, tmp_path):
    with pytest.raises(InputError, match="other settings, seed or version"):
        write_forged(folder, TINY, seed=1)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_forged(tmp_path, TINY, seed=0)
    with pytest.raises(InputError, match="is a file"):
        write_forged(tmp_path / "note.txt", TINY, seed=0)
    assert contents(tmp_path) == {"note.txt": b"mine"}


@pytest.mark.parametrize(
    ("module", "package"), [("skimage", "scikit-image"), ("sklearn", "scikit-learn")]
)
def test_without_a_package_of_photographs_the_extra_is_named(
    module, package, tmp_path, monkeypatch
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else real(name)
    )
    with pytest.raises(InputError, match=rf"^{package} .*pip install '\.\[demo\]' in"):
        write_forged(tmp_path / "forged", TINY, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_forgery_too_weak_to_be_seen_is_refused(tmp_path):
    weak = TINY.model_copy(update={"strengths": Strengths(noise=0.01)})
    with pytest.raises(InputError, match=r"strengths\.noise = 0\.01.*least_change"):
        write_forged(tmp_path / "forged", weak, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_draws_are_one_folder_a_seed(tmp_path: Path) -> None:
    pattern = write_draws(tmp_path / "draws", TINY, [0, 1])
    for seed in (0, 1):
        manifest = Path(str(pattern).replace("{seed}", str(seed)))
        assert manifest.is_file()
        assert json.loads((manifest.parent / "settings.json").read_text())["seed"] == seed
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        write_draws(tmp_path / "file", TINY, [0])


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_pixel_is_in_train_and_in_val(size: int, seed: int) -> None:
    areas = draw_areas(size, seed)
    for train, val in zip(areas["train"], areas["val"], strict=True):
        assert train.group.removesuffix("/a") == val.group.removesuffix("/b")
        assert not np.shares_memory(train.pixels, val.pixels)
        assert min(train.pixels.shape[:2]) >= size
        assert min(val.pixels.shape[:2]) >= size


def test_pools_hold_every_sort_and_every_photograph_once() -> None:
    for seed in range(20):
        pools = draw_pools(np.random.default_rng(seed))
        names = [photograph.name for pool in pools.values() for photograph in pool]
        assert sorted(names) == sorted(photograph.name for photograph in PHOTOGRAPHS)
        for pool in pools.values():
            assert {photograph.sort for photograph in pool} == {"everyday", "scientific", "gray"}


def test_the_sort_of_a_photograph_is_what_its_pixels_say(photographs: dict[str, Pixels]) -> None:
    for photograph in PHOTOGRAPHS:
        assert is_gray(photographs[photograph.name]) == (photograph.sort == "gray")
