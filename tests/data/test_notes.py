import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.data.manifest import Manifest
from preceptor.data.notes import (
    EXAMINED,
    notes,
)
from tests.commands import here
from tests.datasets import squares

# Counts how often each file below images and maps is opened by `data check`.
COUNT = """
import json, os, sys
from collections import Counter
counts = Counter()
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png"):
        counts[str(arguments[0])] += 1
sys.addaudithook(hook)
sys.argv = ["preceptor", "data", "check", sys.argv[1]]
from preceptor.cli.main import main
try:
    main()
except SystemExit as error:
    assert not error.code
print()
print(json.dumps(counts))
"""


def test_sound_data_have_no_notes(tmp_path: Path) -> None:
    assert notes(Manifest.read(squares(tmp_path))) == []


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


def test_a_manifest_is_checked_with_one_reading_of_each_file(tmp_path: Path) -> None:
    file = squares(tmp_path, splits={"train": 120, "val": 10, "test": 10})
    done = subprocess.run(
        [sys.executable, "-c", COUNT, file], capture_output=True, text=True, check=True
    )
    found = Counter(json.loads(done.stdout.splitlines()[-1]).values())
    assert set(found) == {1, 2}  # a sample is read again for the notes on values
    assert found[2] <= 2 * EXAMINED
    assert found[1] >= 140 - EXAMINED


def test_the_same_pixels_in_another_file_are_not_the_same_bytes(tmp_path: Path) -> None:
    file = squares(tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "images/train-0.png"))
    Image.fromarray(pixels).save(tmp_path / "images/test-0.png", compress_level=1)
    assert notes(Manifest.read(file)) == []


def test_similar_labels_are_told_with_their_numbers(tmp_path: Path) -> None:
    file = squares(tmp_path)
    table = pd.read_csv(file)
    table.loc[[1, 25, 37, 49], "label"] = "Marked"
    table.to_csv(file, index=False)
    (note,) = notes(Manifest.read(file))
    assert note == (
        "the labels 'Marked' (4 images) and 'marked' (26 images) are different classes; write them "
        "in one way if they are not meant to be"
    )
