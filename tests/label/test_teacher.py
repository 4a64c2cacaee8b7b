"""The Teacher of the marking page learns squares from few marks, and says how sure it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.errors import InputError
from preceptor.label.marks import Patch
from preceptor.label.teach import (
    LabelTeacher,
    MarkedImage,
    overlap,
    propose,
    teach,
)
from tests.datasets import squares
from tests.label.teachers import CONFIG


def marked(folder: Path, splits: dict[str, int]) -> list[MarkedImage]:
    """Images of `squares` with their maps as marks."""
    table = pd.read_csv(squares(folder, splits=splits, size=(96, 64)), keep_default_na=False)
    found = []
    for row in table.itertuples():
        mask = np.zeros((64, 96), bool)
        if row.saliency:
            mask = np.asarray(Image.open(folder / str(row.saliency)).convert("L")) > 127
        mark = Patch(0, 0, mask)
        found.append(MarkedImage(folder / str(row.path), mark, (96, 64), str(row.split)))
    return found


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelTeacher, list[MarkedImage]]:
    folder = tmp_path_factory.mktemp("teacher")
    images = marked(folder / "data", {"train": 40, "test": 20})
    known = [one for one in images if one.split == "train"]
    return teach(known, folder / "work", CONFIG), [one for one in images if one.split == "test"]


def test_proposals_overlap_with_marks(
    taught: tuple[LabelTeacher, list[MarkedImage]], tmp_path: Path
) -> None:
    teacher, unseen = taught
    found = list(propose(teacher, [one.path for one in unseen], tmp_path))
    overlaps = [
        overlap(one.mask, proposal.mask)
        for one, proposal in zip(unseen, found, strict=True)
        if one.mask.any()
    ]
    assert all(proposal.mask.shape == (64, 96) for proposal in found)
    assert np.mean(overlaps) > 0.4
    assert teacher.agreement is not None
    assert abs(teacher.agreement - np.mean(overlaps)) < 0.3
    scores = [(one.mask.any(), proposal.score) for one, proposal in zip(unseen, found, strict=True)]
    positive, negative = (np.mean([s for has, s in scores if has == is_]) for is_ in (True, False))
    assert positive > negative + 0.2


def test_every_fifth_image_is_held_out_without_a_validation_split(
    taught: tuple[LabelTeacher, list[MarkedImage]],
) -> None:
    assert taught[0].images == 32


def test_validation_images_are_not_taught(tmp_path: Path) -> None:
    images = marked(tmp_path / "data", {"train": 8, "val": 6})
    config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"steps": 1})})
    assert teach(images, tmp_path / "work", config).images == 8
    table = pd.read_csv(tmp_path / "work" / "manifest.csv", keep_default_na=False)
    assert table["split"].value_counts().to_dict() == {"train": 8, "val": 6}


def test_too_few_marks_are_refused(tmp_path: Path) -> None:
    images = marked(tmp_path / "data", {"train": 4})
    with pytest.raises(InputError, match="2 with nothing to mark; there are 1 and 2; mark more"):
        teach([one for one in images if not one.mask.any()] + images[1:2], tmp_path / "w", CONFIG)
