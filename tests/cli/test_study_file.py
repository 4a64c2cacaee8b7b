"""`preceptor study`: the file that init writes, and what plan counts as left."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from preceptor.config.files import dump_config, load_config
from preceptor.study.checks import Size
from preceptor.study.config import StudyConfig
from preceptor.study.plan import StudyPlan
from preceptor.study_folder import write_progress
from tests.commands import here
from tests.datasets import squares
from tests.studies import study, walk, write_down

SPLITS = dict.fromkeys(("train", "val", "test"), 6)
TINY = ("--backbone", "test_byobnet")


def init(manifest: Path, target: Path, *options: object, seconds: float = 60.0) -> str:
    """What `preceptor study init` says, with a given time for a training step."""
    with mock.patch("preceptor.training.prepare.step_seconds", return_value=seconds):
        done = here("study", "init", manifest, "--to", target, *options)
    assert done.code == 0, done
    return done.out


def test_study_init_writes_what_study_plan_accepts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.utils.process.core_count", lambda: 1)
    monkeypatch.chdir(tmp_path)
    folder = data / "studies"
    folder.mkdir()
    file = folder / "my study.yaml"
    done = here("study", "init", data / "manifest.csv", "--to", file, *TINY)
    assert done.code == 0, done
    assert "timing a training step of test_byobnet" in done.out
    assert f"wrote {file}; estimated time on this machine: " in done.out
    written = yaml.safe_load(file.read_text())
    assert list(folder.iterdir()) == [file]
    assert set(tmp_path.iterdir()) <= {tmp_path / "cache"}  # nothing where the command was run
    assert written["manifest"] == "../manifest.csv"
    # A mapper needs maps of the positive class; only the squares are marked.
    assert (written["recipe"], written["mapper"]) == ("recommended", True)
    assert file.read_text().count("#") >= 10

    monkeypatch.chdir(folder)
    done = here("study", "plan", file.name, "--jobs", "1")
    assert (done.code, done.err) == (0, "")
    assert "stage 1 (" in done.out
    assert "stage 2 (" in done.out
    assert "trainings" in done.out
    assert "together about " in done.out
    disk = r"^disk: about [\d.,]+ GiB of models, [\d.,]+ GiB of caches$"
    assert re.search(disk, done.out, re.M)
    assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize(
    ("classes", "positive", "possible"),
    [
        (("plain", "marked"), "plain", False),  # which has no maps
        (("plain", "marked", "other"), "marked", True),
    ],
)
def test_study_init_has_a_mapper_where_there_can_be_one(
    classes: tuple[str, ...], positive: str, possible: bool, tmp_path: Path
) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS, classes=classes)
    target = tmp_path / "s.yaml"
    init(manifest, target, *TINY, "--positive", positive)
    assert yaml.safe_load(target.read_text())["mapper"] is possible


def test_study_init_has_a_ceiling_if_all_training_images_are_annotated(tmp_path: Path) -> None:
    """With fewer, the same maps would guide the ceiling and Baseline 1."""
    manifest = squares(tmp_path / "data", splits=SPLITS)
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    part = table.assign(annotated=["1"] * 3 + ["0"] * (len(table) - 3))
    part.loc[3:, "saliency"] = ""
    part.to_csv(manifest.with_name("part.csv"), index=False)
    for name, expected in ((manifest.name, True), ("part.csv", False)):
        target = tmp_path / f"{name}.yaml"
        init(manifest.with_name(name), target, *TINY, "--positive", "marked")
        written = load_config(target, StudyConfig)
        assert written.ceiling is expected
        # Permuted human maps of a part of the images would guide this part alone.
        assert written.controls[:3] == ("shuffled", "centre", "pca")
        assert ("shuffled_human" in written.controls) is expected


def test_the_positive_class_of_study_init_is_the_one_with_maps(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 6, "val": 4, "test": 4})
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    plain = table.index[(table["label"] == "plain") & (table["split"] == "train")]
    rare = table.drop(plain[:1])
    assert set(rare.loc[(rare["split"] == "train") & (rare["saliency"] != ""), "label"]) == {
        "marked"
    }
    # Of equal images and maps in both classes, the rarer one is positive.
    both = rare.assign(saliency=table.loc[table["saliency"] != "", "saliency"].iloc[0])
    cases = (
        ("one", rare, "marked", "the only class with maps"),
        ("both", both, "plain", "the rarer class"),
    )
    for name, rows, expected, why in cases:
        rows.to_csv(manifest.with_name(f"{name}.csv"), index=False)
        target = tmp_path / f"{name}.yaml"
        said = init(manifest.with_name(f"{name}.csv"), target, *TINY)
        assert yaml.safe_load(target.read_text())["positive"] == expected
        assert f"positive class: {expected} ({why}; choose another with --positive)" in said


@pytest.mark.parametrize("labels", [("0", "c # d"), ("no", 'a: "b')])
def test_study_init_quotes_what_yaml_would_take_otherwise(
    labels: tuple[str, str], tmp_path: Path
) -> None:
    manifest = squares(tmp_path / "a: b #c", splits=SPLITS)
    table = pd.read_csv(manifest)
    table["label"] = table["label"].map(dict(zip(("plain", "marked"), labels, strict=True)))
    table["split"] = table["split"].replace("test", "test-a: 1")
    table.to_csv(manifest, index=False)
    target = tmp_path / "s.yaml"
    init(manifest, target, *TINY, "--positive", labels[1])
    written = yaml.safe_load(target.read_text())
    assert written["positive"] == labels[1]
    assert written["mapper"] is True
    assert written["primary"] == "test-a: 1"
    assert target.parent / written["manifest"] == manifest


def test_study_init_fits_the_hours(data: Path, tmp_path: Path) -> None:
    images = []
    for hours in ("0.01", "1", "100"):
        file = tmp_path / f"{hours}.yaml"
        said = init(data / "manifest.csv", file, "--hours", hours, seconds=0.2)
        written = load_config(file, StudyConfig)
        steps, size = written.training.steps, written.training.input_size
        assert steps is not None
        assert size is not None
        images.append(steps * len(written.seed_list) * size**2)
        assert ("nothing fits" in said) is (hours == "0.01")
        (chosen,) = (line for line in said.splitlines() if line.startswith(">"))
        assert chosen.split()[-4:] == ["resnet10t", f"{size}", f"{steps}", f"{written.seeds}"]
        assert "random weights need many times the images" in said
        assert (written.weights, written.training.frozen) == ("none", None)
    assert images == sorted(set(images))


@pytest.mark.parametrize("backbone", ["mobilenetv2_100", "test_convnext"])
def test_study_init_freezes_pretrained_weights_without_a_gpu(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    weights = tmp_path / f"{backbone}.safetensors"
    weights.write_bytes(b"")  # which a study reads, and init does not
    monkeypatch.setattr("preceptor.study.checks.SIZES", [Size("resnet18", 96, 200, 3)])
    said = init(data / "manifest.csv", tmp_path / "s.yaml", "--backbone", weights, seconds=0.01)
    written = load_config(tmp_path / "s.yaml", StudyConfig)
    assert written.teachers == written.students == (backbone,)
    assert written.weights == str(weights)
    if backbone == "test_convnext":
        assert "the whole network is trained: test_convnext: frozen needs an exact class" in said
    gpu = Path("/dev/nvidia0").exists()
    assert written.training.frozen == (None if gpu or backbone == "test_convnext" else 0.75)
    wrong = here("study", "init", data / "manifest.csv", "--backbone", tmp_path / "x.safetensors")
    assert (wrong.code, "x.safetensors is not a file" in wrong.err) == (2, True)


@pytest.mark.parametrize(("side", "noted"), [(16, False), (1, True)])
def test_study_init_notes_marks_that_are_smaller_than_cells(
    side: int, noted: bool, tmp_path: Path
) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    for file in (manifest.parent / "maps").iterdir():
        mark = np.zeros((32, 32), np.uint8)
        mark[:side, :side] = 255
        Image.fromarray(mark).save(file)
    said = init(manifest, tmp_path / "s.yaml", *TINY, "--positive", "marked")
    assert ("note: 100% of the human maps mark less than half a cell" in said) is noted


def test_study_init_writes_the_published_settings(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    said = init(data / "manifest.csv", file, "--recipe", "paper", "--backbone", "test_resnet")
    written = load_config(file, StudyConfig)
    assert (written.recipe, written.training.recipe, written.mapper) == (None, "paper", False)
    assert (written.training.epochs, written.training.input_size) == (50, 224)
    assert "weights: none, since the hub cannot be reached" in said
    assert written.weights == "none"  # tests are offline


def test_study_init_chooses_no_positive_class_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS, classes=("plain", "marked", "other"))
    target = tmp_path / "s.yaml"
    said = init(manifest, target, *TINY)
    assert "positive class: none (of more than two classes, the AUC is the mean" in said
    assert yaml.safe_load(target.read_text()).get("positive") is None
    assert "one-vs-rest AUC of marked, other, plain" in target.read_text()
    monkeypatch.setattr("preceptor.training.prepare.step_seconds", lambda *_: 60.0)
    done = here("study", "plan", target, "--jobs", "1")
    assert (done.code, done.err) == (0, "")

    chosen = tmp_path / "chosen.yaml"
    assert "positive class" not in init(manifest, chosen, *TINY, "--positive", "other")
    assert yaml.safe_load(chosen.read_text())["positive"] == "other"


@pytest.mark.parametrize("remembered", [True, False])
def test_nothing_is_left_of_a_finished_study(tmp_path: Path, remembered: bool) -> None:
    """Its choices are not those that the plan of a new study assumes."""
    manifest = squares(tmp_path / "data", size=(8, 8))
    config = study(manifest, seeds=1, alphas=(0.5, 0.1), data_driven=True, controls=("pca",))
    plan = StudyPlan.of(walk(config, tmp_path / "store", compute=False))
    write_down(plan, lambda arm, seed: 3 - abs(arm.alpha - 0.1) + ("data" in arm.teacher))
    if remembered:
        write_progress(plan, tmp_path)
    (tmp_path / "plan.yaml").write_text(dump_config(config))
    done = here("study", "plan", tmp_path / "plan.yaml", "--out", tmp_path, "--jobs", 1)
    left = [line for line in done.out.splitlines() if "left:" in line]
    assert len(left) == 2
    assert all("left: 0 of " in line for line in left), left
