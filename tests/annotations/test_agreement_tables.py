"""Tables of `data agreement`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from preceptor.annotations.agreement import agreement_of, read_annotators, write_agreement
from preceptor.errors import InputError
from tests.annotations.trees import annotated_folder
from tests.commands import here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return annotated_folder(tmp_path_factory.mktemp("agreement") / "three <hands>")


def test_the_command(folder: Path) -> None:
    printed = here("data", "agreement", folder).out
    assert "ann – bo: 10 images, Dice " in printed
    pairs = pd.read_csv(folder / "agreement" / "pairs.csv")
    assert pairs["images"].tolist() == [10, 8, 8]
    images = pd.read_csv(folder / "agreement" / "images.csv")
    assert images["dice"].is_monotonic_increasing
    assert images["annotators"].tolist().count("ann | bo") == 2


def test_earlier_tables_are_replaced_and_another_folder_is_not(
    folder: Path, tmp_path: Path
) -> None:
    maps = read_annotators(folder)
    made = agreement_of(maps)
    for _ in range(2):
        write_agreement(maps, made, tmp_path / "out")
    mine = {"mine.txt", "pairs.csv"}
    (tmp_path / "other").mkdir()
    for name in mine:
        (tmp_path / "other" / name).touch()
    with pytest.raises(InputError, match="no result of data agreement"):
        write_agreement(maps, made, tmp_path / "other")
    assert {file.name for file in (tmp_path / "other").iterdir()} == mine
