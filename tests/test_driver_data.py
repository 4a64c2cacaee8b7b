"""Studies of data that need care: sets of one class, three classes, given maps."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from preceptor.config.files import load_config
from preceptor.errors import InputError
from preceptor.study.config import StudyConfig
from preceptor.training.run import train
from tests.commands import assert_refused, here
from tests.datasets import squares
from tests.studies import SETTINGS, run_serially
from tests.training.small_runs import small

BACKBONES = ("test_byobnet", "test_resnet")


def one_class_validation(folder: Path) -> Path:
    """25 training images, `val` of both classes, `val-unseen` of three positives."""
    manifest = squares(folder, splits={"train": 25, "val": 10, "val-unseen": 6, "test-unseen": 6})
    table = pd.read_csv(manifest, keep_default_na=False)
    table = table[(table["split"] != "val-unseen") | (table["label"] == "marked")]
    table.to_csv(manifest, index=False)
    return manifest


def test_a_validation_set_of_one_class_is_refused_or_scored_against_others(tmp_path: Path) -> None:
    settings = SETTINGS | {
        "manifest": str(one_class_validation(tmp_path / "data")),
        "controls": [],
        "ceiling": False,
        "alphas": [0.9, 0.5],
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings))
    refused = here("study", file, "--out", tmp_path / "out")
    expected = ["val-unseen: there is no image of class plain", "validation_negatives: val"]
    assert_refused(refused, expected)
    assert not list(tmp_path.glob("out/store/runs/*"))
    wrong = {
        "val-other": "is not one of the validation sets",
        "val-unseen": "val-unseen: there is no image of class plain",
    }
    for negatives, message in wrong.items():
        file.write_text(yaml.safe_dump(settings | {"validation_negatives": negatives}))
        assert_refused(here("study", file, "--out", tmp_path / "out"), [message])
    file.write_text(yaml.safe_dump(settings | {"validation_negatives": "val"}))
    assert not run_serially(load_config(file, StudyConfig), tmp_path / "out").failed
    choices = json.loads((tmp_path / "out" / "selection.json").read_text(), parse_constant=fail)
    for row in choices["student:test_byobnet"]["table"]:
        assert 0 <= row["value"] <= 1
        assert row["worst_set"] in ("val", "val-unseen")
    figures = pd.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    whole = figures[(figures["set"] == "val-unseen") & (figures["source"] == "")]
    assert (whole["auc"] != "").all()
    for file in tmp_path.glob("out/**/*.json"):
        json.loads(file.read_text(), parse_constant=fail)


def fail(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@pytest.mark.parametrize("primary", ["test-unseen", None])
def test_a_primary_set_of_one_class_is_refused(tmp_path: Path, primary: str | None) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 12, "val": 4, "test-unseen": 1})
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | {"manifest": str(manifest), "primary": primary}))
    told = "primary: test-unseen: there is no image of class marked, so it has no AUC"
    assert_refused(here("study", file, "--out", tmp_path / "out"), [told])


def test_the_best_epoch_by_auc_needs_sets_with_every_class(tmp_path: Path) -> None:
    manifest = one_class_validation(tmp_path / "data")
    training = {"input_size": 32, "batch_size": 8, "epochs": 3, "checkpoint": "best_auc"}
    with pytest.raises(InputError, match="val-unseen: there is no image of class plain"):
        train(small(manifest, training=training), tmp_path / "runs")
    config = small(manifest, training=training, validation_negatives="val")
    found = train(config, tmp_path / "runs")
    scores = pd.read_parquet(found.folder / "scores.parquet")
    unseen = scores["split"] == "val-unseen"
    used = unseen | ((scores["split"] == "val") & (scores["label"] == "plain"))
    for name, mask in (("val-unseen", used), ("val", scores["split"] == "val")):
        value = roc_auc_score(scores["label"][mask] == "marked", scores["score_marked"][mask])
        assert found.record.metrics[f"{name}_auc"] == pytest.approx(value)


def test_three_classes_and_given_maps(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", classes=("none", "red", "blue"), size=(40, 32))
    values = SETTINGS | {
        "manifest": str(manifest),
        "positive": None,
        "seeds": [5],
        "students": BACKBONES,
        "backbone_args": {name: {"output_stride": 8} for name in BACKBONES},
        "alphas": [0.5],
        "maps": {"segmenter": str(tmp_path / "data" / "maps")},
        "mapper": True,
        "guide_classes": ["red", "blue"],
        "annotated_per_seed": True,
        "controls": [],
        "ceiling": False,
        "training": SETTINGS["training"] | {"fit": "letterbox"},
    }
    # Given maps are named by the image's own path: they lie as the images do.
    (tmp_path / "data" / "maps").rename(tmp_path / "data" / "marks")
    table = pd.read_csv(manifest)
    table["saliency"] = table["saliency"].str.replace("maps/", "marks/")
    table.to_csv(manifest, index=False)
    (tmp_path / "data" / "maps" / "images").mkdir(parents=True)
    for mark in (tmp_path / "data" / "marks").glob("train-*.png"):
        (tmp_path / "data" / "maps" / "images" / mark.name).write_bytes(mark.read_bytes())
    result = run_serially(StudyConfig.model_validate(values), tmp_path / "out")
    assert not result.failed
    assert result.missing == 0
    shown = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(shown["backbone"]) == {*BACKBONES, "overall"}
    choice = json.loads((tmp_path / "out" / "selection.json").read_text())["teacher"]
    assert {row["name"] for row in choice["table"]} == {
        "test_byobnet human-guided α 0.5, CAM; Student α 0.5",
        "segmenter (given maps); Student α 0.5",
        "test_byobnet mapper; Student α 0.5",
    }
