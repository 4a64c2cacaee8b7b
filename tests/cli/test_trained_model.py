"""A model at the command line: trained, marking images, scored, and its folder damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from preceptor.maps.store import read_store
from preceptor.utils.results import file_digest
from tests import forked
from tests.commands import HANGS, assert_refused, here
from tests.datasets import SQUARES_RUN, squares
from tests.forked import Forked

RUN: dict[str, Any] = SQUARES_RUN | {
    "manifest": "manifest.csv",
    "training": {"input_size": 32, "epochs": 1, "batch_size": 10, "schedule": "constant"},
}


def write_run(data: Path, name: str = "run.yaml", **changes: Any) -> Path:
    training = RUN["training"] | changes.pop("training", {})
    (data / name).write_text(yaml.safe_dump(RUN | changes | {"training": training}))
    return data / name


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of one run."""
    store = tmp_path_factory.mktemp("trained runs")
    done = here("train", write_run(data), "--out", store)
    assert done.code == 0, done
    assert "epoch 1/1" in done.out
    folder = Path(done.out.splitlines()[-1].removeprefix("run "))
    assert (folder / "run.json").is_file()
    return folder / "model"


def test_a_model_is_trained_marks_and_is_scored(data: Path, model: Path, tmp_path: Path) -> None:
    manifest = data / "manifest.csv"
    assert {file.name for file in model.iterdir()} == {
        "checksums.json",
        "model.json",
        "model.safetensors",
    }
    record = json.loads((model.parent / "run.json").read_text())
    assert (record["training_images"], record["guided_images"]) == (20, 10)
    assert record["grid"] == [4, 4]

    maps = tmp_path / "all maps"
    done = here("annotate", model, manifest, "--out", maps)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"wrote 20 maps of 4 × 4 to {maps}\n"
    store = read_store(maps)
    assert store.maps.shape == (20, 4, 4)
    assert all((data / name).is_file() for name in store.paths)
    options = ["--split", "all", "--out"]
    assert_refused(here("annotate", model, manifest, *options, maps), ["it has a map store"])
    assert here("annotate", model, manifest, *options, tmp_path / "more").code == 0
    assert len(read_store(tmp_path / "more").paths) == 40

    scores = tmp_path / "scores.parquet"
    done = here("evaluate", model, manifest, "--out", scores)
    assert (done.code, done.err) == (0, "")
    for word in ("AUC", "EER", "accuracy", "kind 0", "kind 1"):
        assert word in done.out
    assert here("evaluate", model, manifest, "--out", scores).code == 0  # replaced
    table = tmp_path / "manifest.parquet"
    pd.read_csv(manifest).to_parquet(table)
    before = table.read_bytes()
    refused = here("evaluate", model, manifest, "--out", table)
    assert_refused(refused, ["manifest.parquet exists already and is not a score table"])
    assert table.read_bytes() == before
    written = pd.read_parquet(scores)
    assert list(written["split"].value_counts()[["val", "test"]]) == [10, 10]
    assert written[["score_marked", "score_plain"]].sum(axis=1).round(5).eq(1).all()
    # What the run itself scored on validation is what `evaluate` finds.
    own = pd.read_parquet(model.parent / "scores.parquet")
    both = own.merge(written, on="path", suffixes=("", "_again"))
    assert len(both) == 10
    assert both["score_marked"].sub(both["score_marked_again"]).abs().max() < 1e-6

    # The same run again is not trained again.
    again = here("train", write_run(data), "--out", model.parent.parent)
    assert again.out == f"run {model.parent}\n"

    # The run's maps guide another run, and what does not fit the model is refused.
    source = {"kind": "store", "path": str(maps)}
    student = write_run(data, "student.yaml", maps=source, alpha=0.1)
    done = here("train", student, "--out", model.parent.parent)
    assert done.code == 0, done
    assert "guide" in done.out


def test_maps_belong_to_the_names_of_the_manifest(model: Path, tmp_path: Path) -> None:
    data = squares(tmp_path / "data").parent
    table = pd.read_csv(data / "manifest.csv", keep_default_na=False)
    table.assign(name=[f"image {row}" for row in table.index]).to_csv(
        data / "manifest.csv", index=False
    )
    table = pd.read_csv(data / "manifest.csv", keep_default_na=False)
    training = table[table["split"] == "train"]
    training[5:].to_csv(data / "some.csv", index=False)
    store = tmp_path / "maps"
    assert here("annotate", model, data / "some.csv", "--out", store, "--device", "cpu").code == 0
    assert read_store(store).paths.tolist() == training["name"].tolist()[5:]
    source = {"kind": "store", "path": str(store)}
    done = here("train", write_run(data, maps=source, alpha=0.1), "--out", tmp_path / "runs")
    assert done.code == 0, done
    assert f"{store} has no map of 5 of {len(training)} training images; no map guides" in done.out


def test_a_model_marks_by_rise(data: Path, model: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    command = ["annotate", model, data / "manifest.csv", "--out", maps]
    few = ["--max-masks", "300"]
    done = here(*command, "--method", "rise", *few)
    assert (done.code, done.err) == (0, "")
    store = read_store(maps)
    wanted = {"max_masks": 300, "tolerance": 0.05}
    assert store.info.settings.items() >= wanted.items()
    assert store.info.method == "rise"
    unsettled, masks = int((~store.settled).sum()), int(store.info.settings["masks"])
    assert masks == 20 * 300
    assert done.out == (
        f"wrote 20 maps of 4 × 4 to {maps}\n"
        f"{masks / 20:,.0f} forward passes per image; {unsettled} maps did not reach the tolerance "
        "and will not guide\n"
    )
    assert 0 < unsettled < 20
    # Those that have settled guide a run.
    source = {"kind": "store", "path": str(maps)}
    student = write_run(data, "by rise.yaml", maps=source, alpha=0.1)
    done = here("train", student, "--out", tmp_path / "runs")
    assert done.code == 0, done
    record = json.loads(next((tmp_path / "runs").glob("*/run.json")).read_text())
    assert record["guided_images"] == 20 - unsettled


def test_options_of_marking_that_cannot_be(data: Path, model: Path, tmp_path: Path) -> None:
    options = ["--out", tmp_path / "maps", "--max-masks", "1"]
    done = here("annotate", model, data / "manifest.csv", *options)
    assert (done.code, done.out) == (2, "")
    assert "Error: Invalid value for '--max-masks': " in done.err
    assert not (tmp_path / "maps").exists()


def test_models_meet_tables_that_they_cannot_score(data: Path, model: Path, tmp_path: Path) -> None:
    text = (data / "manifest.csv").read_text()
    other = data / "other.csv"
    other.write_text(text.replace(",marked,val", ",lesion,val"))
    wrong = ["row 23: label 'lesion' is not one of the classes", "'marked', 'plain'"]
    assert_refused(here("evaluate", model, other), wrong, 5)
    assert_refused(here("annotate", model, other, "--out", tmp_path / "maps"), wrong, 5)
    other.write_text(
        "".join(
            line for line in text.splitlines(True) if ",train," in line or line.startswith("path,")
        )
    )
    assert_refused(here("evaluate", model, other), ["no row has a val or test split"])
    split = ["--split", "test-unseen"]
    done = here("annotate", model, data / "manifest.csv", "--out", tmp_path / "maps", *split)
    assert_refused(done, ["'test-unseen'", "'test', 'train', 'val'"])


def test_an_image_that_goes_bad_after_the_check(data: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    squares(folder, splits={"train": 2, "val": 2, "test": 2})
    file = folder / "images" / "test-1.png"
    file.write_bytes(file.read_bytes()[:100])
    done = here("evaluate", model, folder / "manifest.csv")
    assert_refused(done, ["test-1.png", "truncated"])


def test_a_table_of_one_class_is_marked_for_that_class(
    data: Path, model: Path, tmp_path: Path
) -> None:
    text = (data / "manifest.csv").read_text().splitlines(True)
    (data / "plain.csv").write_text("".join(line for line in text if ",marked," not in line))
    for name in ("manifest", "plain"):
        done = here("annotate", model, data / f"{name}.csv", "--out", tmp_path / name)
        assert done.code == 0, done
    both, plain = read_store(tmp_path / "manifest"), read_store(tmp_path / "plain")
    place = {path: position for position, path in enumerate(both.paths)}
    chosen = [place[path] for path in plain.paths]
    assert {plain.info.classes[index] for index in plain.classes} == {"plain"}
    np.testing.assert_allclose(plain.maps, both.maps[chosen], atol=1e-3)


def test_changes_outside_maps_need_maps(data: Path, tmp_path: Path) -> None:
    changes = {"epochs": 1, "augmentation": {"outside": "noise"}}
    file = write_run(data, "no maps.yaml", maps={"kind": "none"}, training=changes)
    done = here("train", file, "--out", tmp_path / "runs")
    assert done.code == 2
    assert done.err.splitlines() == [
        f"error: {file}: training.augmentation.outside is noise, which needs maps, and maps.kind "
        "is none; set maps, or remove outside"
    ]
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_training_goes_on(data: Path, tmp_path: Path) -> None:
    file = write_run(data, "long.yaml", training={"epochs": 12})
    quiet = here("train", file, "--out", tmp_path / "quiet")
    assert quiet.code == 0, quiet

    started = Forked(
        forked.command,
        ["train", file, "--out", tmp_path / "cut"],
        hold=("epoch 2/12", tmp_path / "never"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert started.stdout is not None
    assert started.stdout.readline().startswith("epoch 1/12")
    assert started.stdout.readline().startswith("epoch 2/12")  # so the first has been saved
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=HANGS)
    assert started.returncode == 130
    assert err.startswith("interrupted; repeat the command")
    assert "epoch 12/12" not in out
    assert not list((tmp_path / "cut").glob("*/run.json"))

    done = here("train", file, "--out", tmp_path / "cut")
    assert done.code == 0, done
    assert done.out.startswith("resumed after epoch ")
    found, wanted = (
        Path(outcome.out.splitlines()[-1].removeprefix("run ")) for outcome in (done, quiet)
    )
    assert found.name == wanted.name
    for name in ("model/model.safetensors", "metrics.csv", "scores.parquet"):
        assert file_digest(found / name) == file_digest(wanted / name), name
