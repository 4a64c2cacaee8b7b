"""Random splits of one data set are not independent draws, and a study says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preceptor.report.methods import methods
from preceptor.results.domain import gather
from preceptor.study.checks import SharedImages, shared_images
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.workspaces import Workspaces
from preceptor.study_folder import open_study
from tests.datasets import squares
from tests.studies import study

SPLITS = {"train": 12, "val": 8, "test-unseen": 20}


def independent(folder: Path) -> Path:
    """Two manifests of images of their own."""
    for seed in range(2):
        squares(folder / str(seed), splits=SPLITS, size=(8, 8), seed=seed)
    return folder / "{seed}" / "manifest.csv"


def split_again(folder: Path, swapped: int) -> Path:
    """Two splits of one data set, whose files have other names; `swapped` images of training are
    test images of the second."""
    for seed in range(2):
        file = squares(folder / str(seed), splits=SPLITS, size=(8, 8))
        if seed:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            train, test = (
                np.flatnonzero(table["split"] == name) for name in SPLITS if name != "val"
            )
            table.loc[train[:swapped], "split"] = "test-unseen"
            table.loc[test[:swapped], "split"] = "train"
            fresh = [f"images/again-{row}.png" for row in range(len(table))]
            for old, new in zip(table["path"], fresh, strict=True):
                (file.parent / old).rename(file.parent / new)
            table.assign(path=fresh).to_csv(file, index=False)
    return folder / "{seed}" / "manifest.csv"


def opened(manifest: Path, folder: Path) -> tuple[list[str], Plan]:
    """Notes at the start of a study, and its plan."""
    lines: list[str] = []
    config = study(manifest)
    open_study(config, folder, run=False, report_to=lines.append)
    workspaces = Workspaces.of_study(config, folder / "store")
    return lines, Plan(Protocol(config, workspaces, folder / "store"))


def test_a_start_names_the_manifests_and_no_share_below_a_hundredth(tmp_path: Path) -> None:
    """The methods section names any share."""
    manifest = tmp_path / "{seed}" / "manifest.csv"
    for seed in range(2):
        squares(tmp_path / str(seed), splits=SPLITS | {"test-unseen": 120}, size=(8, 8), seed=seed)
    first, second = (Path(str(manifest).replace("{seed}", seed)).parent for seed in "01")
    table = pd.read_csv(first / "manifest.csv").groupby("split")["path"].first()
    (second / table["test-unseen"]).write_bytes((first / table["train"]).read_bytes())
    lines, plan = opened(manifest, tmp_path / "out")
    assert lines[0] == f"reading {first / 'manifest.csv'} and 1 more"
    assert not any("{seed}" in line or "note: manifest" in line for line in lines)
    assert "up to 0.833 % of the test images" in " ".join(methods(plan, gather(plan)))


def test_images_of_their_own_are_draws(tmp_path: Path) -> None:
    lines, plan = opened(independent(tmp_path / "data"), tmp_path / "out")
    assert shared_images(plan.protocol.workspaces) is None
    assert not any("note: manifest" in line for line in lines)
    assert "Every seed is a new draw of the data" in " ".join(methods(plan, gather(plan)))


def test_splits_of_one_data_set_are_noted(tmp_path: Path) -> None:
    lines, plan = opened(split_again(tmp_path / "data", swapped=4), tmp_path / "out")
    # All images of the data set are in both manifests, whatever their split and name.
    assert shared_images(plan.protocol.workspaces) == SharedImages(2, 2, 1.0)
    (note,) = (line for line in lines if line.startswith("note: manifest"))
    assert "up to 100 % of the test images" in note
    assert "too narrow; use one manifest with several seeds" in note
    said = " ".join(methods(plan, gather(plan)))
    assert "new draw of the data" not in said
    assert "the intervals over draws are too narrow (Nadeau and Bengio 2003)" in said


def test_only_test_images_count(tmp_path: Path) -> None:
    """An image that both seeds train on is none of the tests; one that is tested once is."""
    manifest = independent(tmp_path)
    first, second = (Path(str(manifest).replace("{seed}", seed)) for seed in "01")
    table = pd.read_csv(second, dtype=str, keep_default_na=False)
    other = pd.read_csv(first, dtype=str, keep_default_na=False)

    def exchange(split: str, with_split: str) -> None:
        ours = table.loc[table["split"] == split, "path"].iloc[0]
        theirs = other.loc[other["split"] == with_split, "path"].iloc[0]
        (second.parent / ours).write_bytes((first.parent / theirs).read_bytes())

    def found() -> SharedImages | None:
        return shared_images(
            Workspaces({0: first, 1: second}, dict.fromkeys((first, second), cache))
        )

    cache = tmp_path / "cache"
    exchange("train", "train")
    assert found() is None
    exchange("train", "test-unseen")
    assert found() == SharedImages(1, 2, pytest.approx(1 / 20))


def test_one_manifest_has_nothing_to_share(tmp_path: Path) -> None:
    file = squares(tmp_path / "data", splits=SPLITS, size=(8, 8))
    assert shared_images(Workspaces({0: file, 1: file}, {file: tmp_path / "cache"})) is None
