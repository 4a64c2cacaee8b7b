"""Manifests of a study: the same in another process, and images that seeds share."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preceptor.errors import InputError
from preceptor.report.methods import methods
from preceptor.study.checks import shared_images
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.workspaces import Workspaces
from preceptor.study_folder import open_study
from tests.datasets import squares
from tests.studies import gather, study


def other_label(file: Path) -> None:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    last = table.index[table["split"] == "test"][-1]
    table.loc[last, "label"] = {"marked": "plain", "plain": "marked"}[table.loc[last, "label"]]
    table.to_csv(file, index=False)


def other_map(file: Path) -> None:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    first, second = table["saliency"][table["saliency"] != ""][:2]
    (file.parent / first).write_bytes((file.parent / second).read_bytes())


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Path, bytes]:
    """A manifest, and its workspaces as a worker receives them."""
    file = squares(tmp_path / "data")
    workspaces = Workspaces({0: file}, {file: tmp_path / "cache"})
    workspaces.verify()
    return file, pickle.dumps(workspaces)


def test_another_process_reads_the_same_table(sent: tuple[Path, bytes]) -> None:
    file, state = sent
    there: Workspaces = pickle.loads(state)
    assert there.opened == {}
    assert len(there.at(file).manifest) > 0
    again: Workspaces = pickle.loads(pickle.dumps(pickle.loads(state)))  # on to a third one
    assert again.known == there.known


@pytest.mark.parametrize("change", [other_label, other_map])
def test_a_manifest_that_was_edited_meanwhile_is_refused(
    sent: tuple[Path, bytes], change: Callable[[Path], None]
) -> None:
    """Otherwise an evaluation has the rows of the new manifest and the id of the old one."""
    file, state = sent
    change(file)
    there: Workspaces = pickle.loads(state)
    with pytest.raises(InputError, match="have changed since the command was started; start it"):
        there.at(file)
    assert there.opened == {}


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


def test_splits_of_one_data_set_are_noted(tmp_path: Path) -> None:
    lines, plan = opened(split_again(tmp_path / "data", swapped=4), tmp_path / "out")
    # All images of the data set are in both manifests, whatever their split and name.
    share, words = shared_images(plan.protocol.workspaces)
    assert share == 1.0
    assert "(2 of 2 seeds)" in words
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

    def found() -> tuple[float, str]:
        return shared_images(
            Workspaces({0: first, 1: second}, dict.fromkeys((first, second), cache))
        )

    cache = tmp_path / "cache"
    exchange("train", "train")
    assert found() == (0.0, "")
    exchange("train", "test-unseen")
    share, words = found()
    assert share == pytest.approx(1 / 20)
    assert "(1 of 2 seeds)" in words
