"""The rehearsal of the paper's study: its data, its import, its budget of the example."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from preceptor.config.files import dump_config, load_config
from preceptor.data.manifest import Manifest
from preceptor.models.build import build_model
from preceptor.results.comparisons import PUBLISHED
from preceptor.study.config import StudyConfig
from tests.commands import here

PAPER = Path(__file__).resolve().parents[2] / "examples" / "paper"
TESTS = {"celeba-hq", "ffhq", "srefi", "stylegan2", "stylegan1", "stylegan3", "stylegan-ada"}
TESTS |= {"progan", "stargan"}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(PAPER / "rehearse.py"))


@pytest.fixture(scope="module")
def release(script: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal") / "release"
    script["write_release"](folder, 0.002, size=64)
    return folder


def test_the_layout_is_that_of_the_release(release: Path) -> None:
    assert {file.stem for file in (release / "csvs/gan_test_sets").iterdir()} == TESTS
    lines = (release / "csvs/large_dataset_7x.csv").read_text().splitlines()
    assert lines[1] == "train,Synthetic,/train/7x_data/1_fake/p1_0_fake.png"
    assert {line.split(",")[0] for line in lines} == {"train", "test"}
    for line in lines:
        assert (release / "Data" / line.split(",")[2][1:]).is_file()
    maps = sorted((release / "Data/train/heatmaps").iterdir())
    assert len(maps) == 8
    assert (release / "Data/train/7x_data/1_fake" / maps[0].name).is_file()
    assert Image.open(maps[0]).size == (64, 64)


def test_it_is_imported_by_the_command_for_the_release(
    script: dict[str, Any], release: Path
) -> None:
    done = here(*script["import_command"](release))
    assert (done.code, done.err) == (0, "")
    table = Manifest.read(release / "manifest.csv").table
    test = table[table["split"] == "test-unseen"]
    assert set(test["source"]) == TESTS
    assert set(test["label"]) == {"Real", "Synthetic"}
    train = table[table["split"] == "train"]
    assert len(train) == 25
    assert (train["saliency"] != "").sum() == 8
    assert set(table["split"]) == {"train", "val", "test-unseen"}


def test_the_same_seed_gives_the_same_images(script: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        script["write_release"](tmp_path / name, 0.001, size=64)
    files = [file for file in (tmp_path / "one").rglob("*") if file.is_file()]
    assert len(files) > 30
    for file in files:
        assert (
            file.read_bytes()
            == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
        )


def test_random_weights_are_loaded_as_those_of_imagenet(
    script: dict[str, Any], tmp_path: Path
) -> None:
    script["write_random_weights"](tmp_path, ("test_resnet",), 32)
    file = tmp_path / "test_resnet.safetensors"
    assert list(tmp_path.iterdir()) == [file]
    model = build_model("test_resnet", ["Real", "Synthetic"], positive="Real", weights=str(file))
    own = model.backbone.state_dict()
    written = {name: value for name, value in load_file(file).items() if name in own}
    assert len(written) > 20
    shapes = {name for name in written if own[name].shape == written[name].shape}
    assert all(own[name].equal(written[name]) for name in shapes)


@pytest.mark.parametrize("recipe", ["paper", "cyborg"])
def test_the_rehearsed_study_is_the_example_with_a_small_budget(
    script: dict[str, Any], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UND", "")
    monkeypatch.setenv("RECIPE", "")
    small = script["rehearsed_study"](recipe, tmp_path, tmp_path / "store")
    file = tmp_path / "small.yaml"
    file.write_text(dump_config(small))
    assert load_config(file, StudyConfig) == small

    whole = load_config(PAPER / "study.yaml", StudyConfig)
    given = {name: getattr(whole, name) for name in StudyConfig.model_fields}
    changed = {name for name, value in given.items() if getattr(small, name) != value}
    less = {"saliency"} if recipe == "cyborg" else set()  # RISE takes most of the time
    assert changed == {"seeds", "alphas", "rise_masks", "store", "training"} | less
    plain = {"input_size", "epochs", "batch_size"}
    assert small.training.model_dump(exclude=plain) == whole.training.model_dump(exclude=plain)
    assert set(whole.students) == {backbone for backbone, _ in PUBLISHED["teaching-ai-to-teach"]}
    assert whole.students == script["BACKBONES"]
    assert whole.alpha_grid[0] == 0.01
