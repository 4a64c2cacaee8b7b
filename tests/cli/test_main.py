"""The command line as a user meets it: what it prints, what it leaves, how it stops."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from safetensors.numpy import save_file

from preceptor.cli.inspect_installation import advice_on
from preceptor.cli.installation import StepTime
from preceptor.cli.main import app, main, reported_errors
from preceptor.config.training import Training
from preceptor.execution.local import jobs_at_first
from preceptor.maps.store import read_store
from preceptor.runtime.checksums import file_digest
from preceptor.runtime.leases import lease
from preceptor.runtime.replace_file import replacing
from preceptor.training.record import RunRecord
from preceptor.version import __version__
from tests import forked
from tests.commands import HANGS, apart, assert_refused, here
from tests.datasets import squares
from tests.forked import Forked
from tests.small_files import files_up_to
from tests.start_up import HEAVY, imported_by_command

COMMANDS = [
    (),
    ("version",),
    ("data",),
    ("data", "check"),
    ("data", "split"),
    ("data", "forged"),
    ("data", "plant"),
    ("data", "agreement"),
    ("data", "cache"),
    ("data", "cache", "status"),
    ("data", "cache", "clear"),
    ("data", "export"),
    ("data", "import"),
    ("data", "import", "auto"),
    ("data", "import", "coco"),
    ("data", "import", "cvat"),
    ("data", "import", "fixations"),
    ("data", "import", "folders"),
    ("data", "import", "labelme"),
    ("data", "import", "labelstudio"),
    ("data", "import", "masks"),
    ("data", "import", "und"),
    ("data", "import", "voc"),
    ("data", "import", "yolo"),
    ("train",),
    ("annotate",),
    ("evaluate",),
    ("export",),
    ("sign",),
    ("serve",),
    ("predict",),
    ("explain",),
    ("calibrate",),
    ("monitor",),
    ("label",),
    ("label", "run"),
    ("label", "teach"),
    ("label", "simulate"),
    ("label", "export"),
    ("label", "status"),
    ("study",),
    ("study", "run"),
    ("study", "init"),
    ("study", "schema"),
    ("study", "plan"),
    ("study", "status"),
    ("study", "archive"),
    ("report",),
    ("runs",),
    ("demo",),
    ("doctor",),
]
RUN: dict[str, Any] = {
    "manifest": "manifest.csv",
    "backbone": "test_byobnet",
    "backbone_args": {"output_stride": 8},
    "positive": "marked",
    "training": {"input_size": 32, "epochs": 1, "batch_size": 10, "schedule": "constant"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, under a folder whose name has a blank, a comma and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("cli") / "größe, 画像 #1"
    squares(folder, splits={"train": 20, "val": 10, "test": 10})
    return folder


def write_run(data: Path, name: str = "run.yaml", **changes: Any) -> Path:
    training = RUN["training"] | changes.pop("training", {})
    (data / name).write_text(yaml.safe_dump(RUN | changes | {"training": training}))
    return data / name


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of one run."""
    store = tmp_path_factory.mktemp("trained runs")
    done = here("train", write_run(data), "--out", store, "--cache-dir", store / "cache")
    assert done.code == 0, done
    assert "epoch 1/1" in done.out
    folder = Path(done.out.splitlines()[-1].removeprefix("run "))
    assert (folder / "run.json").is_file()
    return folder / "model"


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    shown = here(*command, "--help")
    assert shown.code == 0
    assert shown.out.startswith("Usage: ")
    assert not shown.err


def test_the_list_of_commands_is_whole() -> None:
    def names(group: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        found = [above]
        for name, command in getattr(group, "commands", {}).items():
            found += names(command, (*above, name))
        return found

    assert set(COMMANDS) == set(names(typer.main.get_command(app)))


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "preceptor", "version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, __version__, "")


def test_help_needs_nothing_heavy() -> None:
    heavy = {"torch", "timm", "pandas", "numpy", "pydantic", "matplotlib", "rich.console"}
    assert not imported_by_command(["--help"], heavy).imported


def test_runs_of_a_store_need_no_torch(tmp_path: Path) -> None:
    record = RunRecord(
        id="done",
        config={"backbone": "test_vit", "maps": {"kind": "human"}, "alpha": 0.5, "seed": 3},
        classes=("a", "b"),
        input_size=32,
        grid=(4, 4),
        saliency="cam",
        training_images=24,
        guided_images=12,
        soft_labelled_images=0,
        uninformative_maps=0,
        images_seen=24,
        best_epoch=1,
        metrics={"val_auc": 0.75},
        seconds=1.0,
        device="cpu",
        versions={},
    )
    (tmp_path / "runs" / "done").mkdir(parents=True)
    record.write(tmp_path / "runs" / "done")
    (tmp_path / "runs" / "begun").mkdir()
    state = {"state": json.dumps({"epoch": 2})}
    save_file({"weight": np.zeros(3)}, tmp_path / "runs" / "begun" / "resume.safetensors", state)
    done = imported_by_command(["runs", tmp_path], HEAVY)
    assert not done.imported
    lines = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    assert lines["done"] == ["test_vit", "0.5", "3", "finished", "1", "0.750", "1"]
    assert lines["begun"] == ["–", "–", "begun", "2", "–", "–"]


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["train"], ["train", "x.yaml", "--no-such"], ["data", "chekc"]]
)
def test_words_that_are_no_command(arguments: list[str]) -> None:
    done = here(*arguments)
    assert done.code == 2
    assert "Usage: preceptor" in done.err
    assert "Traceback" not in done.err


# data


def test_data_check_counts_what_there_is(data: Path) -> None:
    done = here("data", "check", data / "manifest.csv")
    assert done.code == 0
    assert not done.err
    table = [line.split() for line in done.out.splitlines() if line.strip()]
    assert "40 images" in done.out
    header = ["split", "images", "marked", "plain", "annotated", "with", "map"]
    assert header in [line[:7] for line in table]
    rows = {line[0]: line[1:6] for line in table if line[0] in ("train", "val", "test")}
    assert rows["train"] == ["20", "10", "10", "20", "10"]
    assert rows["val"] == rows["test"] == ["10", "5", "5", "10", "5"]
    assert done.out.count("32×32") == 3


def test_data_split_goes_out_and_comes_back(data: Path, tmp_path: Path) -> None:
    arguments = ["data", "split", data / "manifest.csv", "--train", "0.5", "--val", "0.25"]
    arguments += ["--test", "0.25", "--hold-out", "kind 0=test-unseen"]
    for name in ("one", "two"):
        done = here(*arguments, "--to", tmp_path / f"{name}.csv")
        assert done.code == 0, done
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert here(*arguments, "--to", tmp_path / "seed.csv", "--seed", "1").code == 0
    assert (tmp_path / "one.csv").read_bytes() != (tmp_path / "seed.csv").read_bytes()

    before, after = pd.read_csv(data / "manifest.csv"), pd.read_csv(tmp_path / "one.csv")
    assert list(after["label"]) == list(before["label"])
    assert set(after.loc[after["source"] == "kind 0", "split"]) == {"test-unseen"}
    added = after[(after["split"] == "test-unseen") & (after["source"] != "kind 0")]
    assert set(added["label"]) == {"plain"}
    said = f"test-unseen: images of missing classes were added from other sources ({len(added)}"
    assert f"{said} of plain)" in done.out
    for name, count in after["split"].value_counts().items():
        assert f"{name} {count}" in done.out
    # The written table lies in another folder, and its files are found from there.
    assert here("data", "check", tmp_path / "one.csv").code == 0


@pytest.mark.parametrize("kind", ["train", "val", "test"])
def test_a_split_without_a_share_is_refused_by_its_option(
    data: Path, tmp_path: Path, kind: str
) -> None:
    shares = {"train": 0.5, "val": 0.5, "test": 0.5} | {kind: 0}
    options = [text for name, share in shares.items() for text in (f"--{name}", share)]
    done = here("data", "split", data / "manifest.csv", "--to", tmp_path / "x.csv", *options)
    refusal = f"--{kind} 0: no image would be in a {kind} split; set a share above 0"
    assert_refused(done, [refusal])
    assert ("--hold-out SOURCE=" in done.err) == (kind != "train")
    assert not (tmp_path / "x.csv").exists()


def test_a_held_out_source_may_be_the_only_test_set(data: Path, tmp_path: Path) -> None:
    shares = ["--train", 0.5, "--val", 0.5, "--test", 0, "--hold-out", "kind 0=test-unseen"]
    done = here("data", "split", data / "manifest.csv", "--to", tmp_path / "x.csv", *shares)
    assert done.code == 0, done
    assert set(pd.read_csv(tmp_path / "x.csv")["split"]) == {"train", "val", "test-unseen"}


def test_data_check_names_sets_that_lack_a_class(data: Path) -> None:
    table = pd.read_csv(data / "manifest.csv")
    marked = (table["label"] == "marked") & (table["split"] == "val")
    table.loc[marked & (table["source"] == "kind 0"), "split"] = "val-unseen"
    table.to_csv(data / "lacking.csv", index=False)
    done = here("data", "check", data / "lacking.csv")
    assert done.code == 0, done
    (note,) = [line for line in done.out.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: val-unseen: there is no image of class plain, so it has no AUC")
    assert "validation_negatives: val" in note


def test_cells_with_commas_quotes_and_line_breaks(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted", folder'
    folder.mkdir()
    table = pd.read_csv(data / "manifest.csv")
    for column in ("path", "saliency"):
        table[column] = table[column].map(lambda name: f"{data}/{name}", na_action="ignore")
    table["label"] = table["label"].replace("marked", 'marked, "by hand"')
    table["note"] = "one\ntwo; three, four"
    table.to_csv(folder / "a, b.csv", index=False)
    done = here("data", "check", folder / "a, b.csv")
    assert done.code == 0, done
    assert 'marked, "by hand"' in done.out
    again = here("data", "split", folder / "a, b.csv", "--to", folder / "c.csv")
    assert again.code == 0, again
    assert set(pd.read_csv(folder / "c.csv")["note"]) == {"one\ntwo; three, four"}


# train, annotate, evaluate


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
    assert here("annotate", model, manifest, "--out", maps, "--split", "all").code == 0
    assert len(read_store(maps).paths) == 40

    scores = tmp_path / "scores.parquet"
    done = here("evaluate", model, manifest, "--out", scores)
    assert (done.code, done.err) == (0, "")
    for word in ("AUC", "EER", "accuracy", "kind 0", "kind 1"):
        assert word in done.out
    assert here("evaluate", model, manifest, "--out", scores).code == 0  # replaced
    before = manifest.read_bytes()
    refused = here("evaluate", model, manifest, "--out", manifest)
    assert_refused(refused, ["manifest.csv exists already and is not a score table"])
    assert manifest.read_bytes() == before
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


def test_a_model_marks_by_rise(data: Path, model: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    command = ["annotate", model, data / "manifest.csv", "--out", maps]
    few = ["--max-masks", "200", "--tolerance", "0.5"]
    done = here(*command, "--method", "rise", *few)
    assert (done.code, done.err) == (0, "")
    store = read_store(maps)
    wanted = {"max_masks": 200, "tolerance": 0.5}
    assert store.info.settings.items() >= wanted.items()
    assert store.info.method == "rise"
    unsettled, masks = int((~store.settled).sum()), int(store.info.settings["masks"])
    assert unsettled * 200 <= masks < 20 * 200
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


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--method", "lime", "method lime is not one of cam, rise, cells"),
        ("--max-masks", "1", "greater than or equal to 2"),
        ("--tolerance", "1", "less than or equal to 0.99"),
    ],
)
def test_options_of_marking_that_cannot_be(
    option: str, value: str, reason: str, data: Path, model: Path, tmp_path: Path
) -> None:
    done = here("annotate", model, data / "manifest.csv", "--out", tmp_path / "maps", option, value)
    assert (done.code, done.out) == (2, "")
    usage, line = done.err.strip().rsplit("\n", 1)
    assert usage.startswith("Usage: preceptor annotate")
    assert line.startswith(f"Error: Invalid value for '{option}': ")
    assert reason in line
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


def test_model_folders_that_are_damaged(data: Path, model: Path, tmp_path: Path) -> None:
    manifest = data / "manifest.csv"
    weights, description = "model.safetensors", "model.json"
    for name, content in [
        (weights, (model / weights).read_bytes()[:1000]),
        (weights, None),
        (description, b"{"),
        (description, (model / description).read_bytes().replace(b"test_byobnet", b"test_resnet")),
    ]:
        broken = tmp_path / f"{name} {len(content or b'')}"
        broken.mkdir()
        for file in model.iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
        if content is None:
            (broken / name).unlink()
        else:
            (broken / name).write_bytes(content)
        assert_refused(here("evaluate", broken, manifest), [f"{broken}: {name} does not match"])


def test_an_image_that_goes_bad_after_the_check(data: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    squares(folder, splits={"train": 2, "val": 2, "test": 2})
    file = folder / "images" / "test-1.png"
    file.write_bytes(file.read_bytes()[:100])
    done = here("evaluate", model, folder / "manifest.csv", "--cache", "none")
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


# study init


def test_study_init_writes_what_study_plan_accepts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.runtime.cores.core_count", lambda: 1)
    monkeypatch.chdir(tmp_path)
    folder = data / "studies"
    folder.mkdir()
    file = folder / "my study.yaml"
    wanted = ["--backbone", "test_byobnet", "--weights", "none", "--size", "64"]
    done = here("study", "init", data / "manifest.csv", "--to", file, *wanted)
    assert done.code == 0, done
    assert done.out.startswith(f"wrote {file}; estimated time on this machine: ")
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
    assert re.search(r"^marks of \d+ training images: median area \d", done.out, re.M)
    assert "stage 1 (" in done.out
    assert "stage 2 (" in done.out
    assert "trainings" in done.out
    assert "together about " in done.out
    assert re.search(
        r"^disk: about [\d.,]+ GiB of models, [\d.,]+ GiB of image caches$", done.out, re.M
    )
    assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize(
    ("classes", "positive", "possible"),
    [
        (("plain", "marked"), "marked", True),
        (("plain", "marked"), "plain", False),  # which has no maps
        (("plain", "marked", "other"), "marked", False),
    ],
)
def test_study_init_has_a_mapper_where_there_can_be_one(
    classes: tuple[str, ...],
    positive: str,
    possible: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("preceptor.cli.study_file.estimate_seconds", lambda *_: 60.0)
    splits = dict.fromkeys(("train", "val", "test"), 6)
    manifest = squares(tmp_path / "data", splits=splits, classes=classes)
    options = ["--backbone", "test_byobnet", "--weights", "none", "--positive", positive]
    target = tmp_path / "s.yaml"
    done = here("study", "init", manifest, "--to", target, *options)
    assert done.code == 0, done
    assert yaml.safe_load(target.read_text())["mapper"] is possible


def test_study_init_and_doctor_have_one_rule_for_threads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, `study init` wrote two threads where doctor said that one is enough."""
    monkeypatch.setattr("preceptor.cli.study_file.estimate_seconds", lambda *_: 60.0)
    monkeypatch.setattr("preceptor.runtime.cores.core_count", lambda: 6)
    options = ["--backbone", "test_byobnet", "--weights", "none", "--size", "64"]
    target = tmp_path / "s.yaml"
    done = here("study", "init", data / "manifest.csv", "--to", target, *options)
    assert done.code == 0, done
    threads = yaml.safe_load(target.read_text())["training"]["threads"]
    assert Training().threads == threads
    assert f"60 seconds with {jobs_at_first('auto', threads)} job(s)" in target.read_text()
    (advice,) = advice_on([StepTime("32-true", threads, 50.0), StepTime("32-true", 6, 200.0)])
    assert f"needs no more than {threads}, since" in advice


@pytest.mark.parametrize("labels", [("0", "1"), ("no", "yes"), ("a: b", "c # d"), ('"', "null")])
def test_study_init_quotes_what_yaml_would_take_otherwise(
    labels: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.cli.study_file.estimate_seconds", lambda *_: 60.0)
    manifest = squares(tmp_path / "a: b #c", splits=dict.fromkeys(("train", "val", "test"), 4))
    table = pd.read_csv(manifest)
    table["label"] = table["label"].map(dict(zip(("plain", "marked"), labels, strict=True)))
    table["split"] = table["split"].replace("test", "test-a: 1")
    table.to_csv(manifest, index=False)
    weights = tmp_path / "my weights.safetensors"
    weights.touch()
    options = ["--backbone", "test_byobnet", "--weights", weights]
    target = tmp_path / "s.yaml"
    done = here("study", "init", manifest, "--to", target, *options, "--positive", labels[1])
    assert done.code == 0, done
    written = yaml.safe_load(target.read_text())
    assert written["positive"] == labels[1]
    assert written["mapper"] is True
    assert written["primary"] == "test-a: 1"
    assert target.parent / written["manifest"] == manifest
    assert target.parent / written["weights"] == weights


def test_study_init_refuses_a_size_at_which_nothing_can_be_guided(
    data: Path, tmp_path: Path
) -> None:
    options = ["--backbone", "test_byobnet", "--weights", "none", "--size", "32"]
    done = here("study", "init", data / "manifest.csv", "--to", tmp_path / "s.yaml", *options)
    assert_refused(done, ["1 × 1 feature grid", "output_stride: 8 in backbone_args"])
    assert not (tmp_path / "s.yaml").exists()


def test_changes_outside_maps_need_maps(data: Path, tmp_path: Path) -> None:
    changes = {"epochs": 1, "augmentation": {"outside": "blur"}}
    file = write_run(data, "no maps.yaml", maps={"kind": "none"}, training=changes)
    done = here("train", file, "--out", tmp_path / "runs")
    assert done.code == 2
    assert done.err.splitlines() == [
        f"error: {file}: training.augmentation.outside is blur, which needs maps, and maps.kind is "
        "none; set maps, or remove outside"
    ]
    assert not (tmp_path / "runs").exists()


# Interruptions


def test_an_interruption_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, reported_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted; repeat the command to resume\n"


def test_sigterm_ends_a_command_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def long_command(**_: object) -> None:
        with lease(tmp_path / "run"), replacing(tmp_path / "a.txt") as partial:
            partial.touch()
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("preceptor.cli.main.command", lambda: long_command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 143
    assert capsys.readouterr().err == "terminated; repeat the command to resume\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_output_on_a_full_disk_is_named_and_not_left_in_part(tmp_path: Path) -> None:
    out = tmp_path / "schema.json"
    with files_up_to(4096):
        done = here("study", "schema", "--out", out)
    assert (done.code, done.err) == (1, f"error: {out}: File too large\n")
    assert list(tmp_path.iterdir()) == []
    assert here("study", "schema", "--out", out).code == 0


def test_an_interrupted_training_goes_on(data: Path, tmp_path: Path) -> None:
    file = write_run(data, "long.yaml", training={"epochs": 12})
    cache = ["--cache-dir", str(tmp_path / "cache")]
    quiet = here("train", file, "--out", tmp_path / "quiet", *cache)
    assert quiet.code == 0, quiet

    started = Forked(
        forked.command,
        ["train", file, "--out", tmp_path / "cut", *cache],
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
    assert err == "interrupted; repeat the command to resume\n"
    assert "epoch 12/12" not in out
    assert not list((tmp_path / "cut").glob("*/run.json"))

    done = here("train", file, "--out", tmp_path / "cut", *cache)
    assert done.code == 0, done
    assert done.out.startswith("resumed after epoch ")
    found, wanted = (
        Path(outcome.out.splitlines()[-1].removeprefix("run ")) for outcome in (done, quiet)
    )
    assert found.name == wanted.name
    for name in ("model/model.safetensors", "metrics.csv", "scores.parquet"):
        assert file_digest(found / name) == file_digest(wanted / name), name


def test_a_reader_that_has_seen_enough(data: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = forked.run(forked.command, ["data", "check", data / "manifest.csv"], stdout=write)
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_command_as_it_is_installed(data: Path) -> None:
    script = Path(sys.executable).with_name("preceptor")
    if not script.is_file():
        pytest.skip("the project is not installed beside this Python")
    done = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().count(".") == 2
    assert apart("data", "check", "manifest.csv", cwd=data).code == 0


def test_letters_that_a_terminal_lacks_are_escaped() -> None:
    """The schema of study files has an α, which an ASCII terminal cannot show."""
    done = subprocess.run(
        [sys.executable, "-m", "preceptor", "study", "schema"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\\u03b1" in done.stdout
