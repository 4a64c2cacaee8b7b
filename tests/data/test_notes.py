"""Notes on valid content that is probably a mistake, and the summary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.data.manifest import Manifest
from preceptor.data.notes import EXAMINED, notes, summary_table, value_notes
from preceptor.study_folder import open_study
from tests.commands import here
from tests.data.sound_manifest import save
from tests.datasets import squares
from tests.studies import study


def test_sound_data_have_no_notes(tmp_path: Path) -> None:
    manifest = Manifest.read(squares(tmp_path))
    assert notes(manifest) == value_notes(manifest) == []


def test_byte_identical_images_in_two_kinds_of_split_are_counted(tmp_path: Path) -> None:
    file = squares(tmp_path)
    for source, target in (
        ("train-0", "test-2"),
        ("train-0", "test-unseen-4"),
        ("train-1", "test-3"),
        ("val-0", "test-6"),
        ("train-3", "train-5"),
        ("test-8", "test-unseen-8"),
    ):
        data = (tmp_path / f"images/{source}.png").read_bytes()
        (tmp_path / f"images/{target}.png").write_bytes(data)
    manifest = Manifest.read(file)
    first, second = notes(manifest)
    assert first.startswith("3 images of test are byte for byte in train too (images/test-2.png = ")
    assert second.startswith("1 image of test is byte for byte in val too")
    done = here("data", "check", file)
    assert done.code == 0
    assert f"note: {first}" in done.out


def test_byte_identical_images_with_different_labels_are_noted(tmp_path: Path) -> None:
    file = squares(tmp_path)
    table = pd.read_csv(file)
    train = table[table["split"] == "train"]
    (one, other), label = train.drop_duplicates("label").index[:2], table["label"]
    for second in (other, table.index[(table["split"] == "test") & (label != label[one])][0]):
        data = (tmp_path / table["path"][one]).read_bytes()
        (tmp_path / table["path"][second]).write_bytes(data)
    manifest = Manifest.read(file)
    note = notes(manifest)[-1]
    assert note.startswith("2 images are byte for byte the same as an image with another label (")
    assert f"{table['path'][other]} is {label[other]!r}, {table['path'][one]} is" in note


@pytest.mark.parametrize(("bits", "levels"), [(12, 17), (14, 65), (16, None)])
def test_images_of_few_bits_in_files_of_16_are_noted(
    bits: int, levels: int | None, tmp_path: Path
) -> None:
    file = squares(tmp_path)
    names = sorted((tmp_path / "images").glob("*.png"))
    deep = np.linspace(0, 2**bits - 1, 32 * 32).astype(np.uint16).reshape(32, 32)
    for name in names[:2]:
        Image.fromarray(deep).save(name)
    if levels is None:
        assert value_notes(Manifest.read(file)) == []
        return
    assert len(np.unique(decode_image(names[0]))) == levels
    (note,) = value_notes(Manifest.read(file))
    assert len(names) <= EXAMINED
    expected = f"2 of {len(names)} examined images have 16 bits and no value above {2**bits - 1:,}"
    assert note.startswith(expected)
    assert f"so that {levels} gray levels are left" in note
    lines: list[str] = []
    open_study(study(file), tmp_path / "out", run=True, report_to=lines.append)
    assert f"note: {note}" in lines


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_maps_in_color_are_noted_and_gray_ones_are_not(suffix: str, tmp_path: Path) -> None:
    file = squares(tmp_path)
    values = np.tile(np.linspace(0, 1, 32), (32, 1))
    jet = np.clip(1.5 - np.abs(4 * values[..., None] - [3, 2, 1]), 0, 1)  # red, green and blue
    jet = (jet * 255).round().astype(np.uint8)
    gray = np.repeat((values * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    maps = sorted((tmp_path / "maps").iterdir())
    for name, picture, said in (("gray", gray, False), ("jet", jet, True)):
        Image.fromarray(picture).save(tmp_path / f"{name}{suffix}", quality=60)
        maps[0].write_bytes((tmp_path / f"{name}{suffix}").read_bytes())
        notes = value_notes(Manifest.read(file))
        assert len(notes) == said
    assert f"1 of {len(maps)} examined human maps has colors: a map is read by its" in notes[0]
    done = here("data", "check", file)
    assert done.code == 0
    assert f"note: {notes[0]}" in done.out


def test_the_summary_counts_by_split(folder: Path) -> None:
    save(folder / "images" / "c.png", (16, 12))
    summary = summary_table(Manifest.read(folder / "m.csv"))
    assert summary.index.tolist() == ["train", "val-unseen", "val", "test", "test-gan3"]
    assert summary.loc["train"].to_dict() == {
        "images": 2,
        "fake": 1,
        "real": 1,
        "annotated": 2,
        "with map": 1,
        "sources": 1,
        "groups": 1,
        "sizes": "8×6 – 16×12",
    }
    assert summary.loc["test", "sizes"] == "8×6"


def test_names_like_patients_in_two_splits_are_noted(tmp_path: Path) -> None:
    file = squares(tmp_path)
    table = pd.read_csv(file)
    names = [f"images/p{at // 4:03d}_{at % 4}.png" for at in np.random.default_rng(0).permutation(len(table))]  # fmt: skip  # noqa: E501
    for old, new in zip(table["path"], names, strict=True):
        (tmp_path / old).rename(tmp_path / new)
    table.assign(path=names, group="").to_csv(file, index=False)
    (line,) = notes(Manifest.read(file))
    assert line.startswith("names such as images/p0")
    assert "fill the column `group`" in line
