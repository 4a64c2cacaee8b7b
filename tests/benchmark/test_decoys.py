"""Decoys: what tells the class where, and that no object is in two splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.benchmark.decoys import DecoySettings, Objects, levels, write_decoys
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError

SMALL = DecoySettings(train=40, val=40, val_noshort=40, test=40)


def _read(root: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(root / name))


def _frame(manifest: Path) -> pd.DataFrame:
    return pd.read_csv(manifest, dtype={"label": str})


@pytest.mark.parametrize("place", ["moving", "corner"])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_patch_tells_the_class_in_train_and_val_only(
    place: str, classes: int, tmp_path: Path
) -> None:
    settings = SMALL.model_copy(update={"place": place, "classes": classes})
    manifest = write_decoys(tmp_path / "0", settings, 0)
    grays, right = levels(classes), dict[str, list[bool]]()
    for row in _frame(manifest).itertuples():
        image, mask = _read(manifest.parent, row.path), _read(manifest.parent, row.saliency)
        assert image.shape == mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 255}
        gray = grays[int(row.label)]
        flat = np.lib.stride_tricks.sliding_window_view(np.where(mask > 0, -1, image), (7, 7))
        right.setdefault(row.split, []).append(bool((flat == gray).all((2, 3)).any()))
    assert all(right["train"])
    assert all(right["val"])
    for split in ("val-noshort", "test"):
        assert np.mean(right[split]) < (0.9 if classes == 2 else 0.4)
    assert len(Manifest.read(manifest)) == 160


def test_no_object_is_in_two_splits_and_classes_take_turns() -> None:
    objects = Objects(SMALL)
    for settings in (SMALL, DecoySettings(exact=True)):
        drawn = objects.draw(settings, 3)
        kept = [set(chosen.tolist()) for chosen in drawn.values()]
        assert sum(map(len, kept)) == len(set().union(*kept))
    assert len(set().union(*kept)) == len(objects.labels)  # exact uses all
    assert objects.labels[objects.draw(SMALL, 3)["train"]].tolist() == [*range(10)] * 4


def test_draws_differ_and_a_draw_is_repeated_to_the_byte(tmp_path: Path) -> None:
    first = write_decoys(tmp_path / "a", SMALL, 0).parent
    again = write_decoys(tmp_path / "b", SMALL, 0).parent
    other = write_decoys(tmp_path / "c", SMALL, 1).parent
    name = "images/train/000007.png"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / name).read_bytes() != (other / name).read_bytes()


def test_the_published_images(tmp_path: Path) -> None:
    manifest = write_decoys(tmp_path / "0", DecoySettings(exact=True), 0)
    table = _frame(manifest)
    assert len(table) == 1797
    for row in table[table["split"] == "train"].head(30).itertuples():
        image = _read(manifest.parent, row.path)
        assert image.shape == (28, 28)
        gray = 255 - 25 * int(row.label)
        corners = [image[a : a + 4, b : b + 4] for a in (0, 24) for b in (0, 24)]
        assert any((corner == gray).all() for corner in corners)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a folder with the four files of Fashion-MNIST"):
        write_decoys(tmp_path / "x", DecoySettings(source=str(tmp_path / "none")), 0)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(InputError, match="damaged"):
        write_decoys(tmp_path / "x", DecoySettings(source=str(tmp_path)), 0)
    with pytest.raises(ValueError, match="the published images have 10"):
        DecoySettings(exact=True, classes=3)
