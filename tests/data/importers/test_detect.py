"""What `data import auto` recommends is what imports the whole source."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from preceptor.data.importers import detect_format
from tests.commands import here
from tests.data.importers.trees import coco, save_image, save_json

SPLITS = ("train", "valid", "test")


def recommended(source: Path) -> list[str]:
    """Arguments of the printed command."""
    outcome = here("data", "import", "auto", source)
    assert outcome.code == 0, outcome
    line = outcome.out.splitlines()[-1]
    assert line.startswith("import: preceptor ")
    return shlex.split(line.removeprefix("import: preceptor "))


def run(command: list[str], images: Path, to: Path) -> str:
    command = [
        str(images) if one == "DIR" else str(to) if one == "FOLDER" else one for one in command
    ]
    outcome = here(*command)
    assert outcome.code == 0, outcome
    return outcome.out


@pytest.fixture
def roboflow(tmp_path: Path) -> Path:
    """A COCO export of Roboflow, in a folder with a blank in its name."""
    for split in SPLITS:
        folder = tmp_path / "road cracks" / split
        save_image(folder / f"{split}.jpg")
        value = coco([{"file_name": f"{split}.jpg"}], [{"bbox": [1, 2, 10, 5]}])
        save_json(folder / "_annotations.coco.json", value)
    return tmp_path / "road cracks"


def test_all_splits_of_a_folder_are_imported(tmp_path: Path, roboflow: Path) -> None:
    (found,) = detect_format(roboflow)
    assert found.sources == (roboflow,)
    assert "2 more such files" in found.why
    out = run(recommended(roboflow), roboflow, tmp_path / "out")
    assert "3 images, 3 with a map" in out
    table = (tmp_path / "out" / "manifest.csv").read_text()
    for split in ("train", "val", "test"):
        assert f",{split}," in table


def test_files_are_named_if_there_are_others(tmp_path: Path, roboflow: Path) -> None:
    save_json(roboflow / "about.json", {"made": "by hand"})
    (found,) = detect_format(roboflow)
    assert found.sources == tuple(
        roboflow / split / "_annotations.coco.json" for split in sorted(SPLITS)
    )
    assert "3 images" in run(recommended(roboflow), roboflow, tmp_path / "out")


def test_instances_come_before_captions(tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    save_image(folder / "a.jpg")
    value = coco([{"file_name": "a.jpg"}], [{"bbox": [1, 2, 10, 5]}])
    save_json(folder / "instances_val2017.json", value)
    save_json(folder / "captions_val2017.json", value | {"annotations": [{"caption": "a wall"}]})
    assert detect_format(folder)[0].sources == (folder,)
    assert "1 images, 1 with a map" in run(recommended(folder), folder, tmp_path / "out")


def test_formats_of_one_file_are_imported_one_at_a_time(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.xml").write_text("<annotations><version>1.1</version></annotations>")
    (found,) = detect_format(tmp_path)
    assert found.sources == (tmp_path / "a.xml",)
    assert found.why.endswith("1 more such file, to be imported one at a time")
