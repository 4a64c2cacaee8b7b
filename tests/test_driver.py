"""A whole study with real worker processes: what it leaves, and that nothing can be lost."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from preceptor.config.run import RunConfig, Training
from preceptor.config.yaml_file import load_config
from preceptor.driver import open_study, run_study
from preceptor.errors import InputError
from preceptor.models.build import load_model
from preceptor.study.config import StudyConfig
from preceptor.training.run import train
from tests.commands import assert_refused, here
from tests.datasets import SQUARES_STUDY, squares

SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "seeds": 1,
    "training": {
        "input_size": 32,
        "epochs": 2,
        "batch_size": 8,
        "lr": 0.01,
        "schedule": "constant",
    },
}
TABLES = ("results.csv", "table.csv", "table.md", "comparisons.csv", "selection.json")


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    squares(folder / "data")
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | {"manifest": "data/manifest.csv"}))
    return file


@pytest.fixture(scope="module")
def undisturbed(study_file: Path) -> Path:
    out = study_file.parent / "undisturbed"
    result = run_study(load_config(study_file, StudyConfig), out, jobs=1, tell=lambda line: None)
    assert not result.failed
    assert result.missing == 0
    return out


def command(file: Path, out: Path, jobs: int = 1) -> list[str]:
    arguments = ["study", str(file), "--out", str(out), "--jobs", str(jobs)]
    return [sys.executable, "-c", "from preceptor.cli.main import main; main()", *arguments]


def same_tables(one: Path, other: Path) -> None:
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_table_has_every_side(undisturbed: Path) -> None:
    table = pd.read_csv(undisturbed / "table.csv")
    primary = table[(table["set"] == "test-unseen") & table["source"].isna()]
    assert list(primary["key"]) == [
        "baseline1_paper", "baseline1", "baseline2", "student", "shuffled", "centre",
        "distilled", "mixed", "ceiling",
    ]  # fmt: skip
    assert primary["mean"].between(0, 1).all()
    assert set(table["set"]) == {"val", "test", "test-unseen"}
    assert load_model(undisturbed / "best").spec.thresholds.keys() == {"eer"}
    html = (undisturbed / "report.html").read_text()
    assert "test-unseen" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_again_nothing_is_repeated(study_file: Path, undisturbed: Path) -> None:
    runs = {file: file.stat().st_mtime_ns for file in undisturbed.glob("store/*/*/run.json")}
    lines: list[str] = []
    result = run_study(load_config(study_file, StudyConfig), undisturbed, tell=lines.append)
    assert result.computed == 0
    for file, written in runs.items():
        assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_three_moments_the_table_is_the_same(
    study_file: Path, undisturbed: Path, tmp_path: Path, jobs: int
) -> None:
    generator = np.random.default_rng(jobs)
    out = tmp_path / "killed"
    for lines_before in generator.integers(1, 5, 3):
        with subprocess.Popen(
            command(study_file, out, jobs), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for count, _ in enumerate(process.stdout):
                if count == lines_before:
                    process.send_signal(signal.SIGKILL)
                    break
    done = subprocess.run(command(study_file, out, jobs), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same_tables(out, undisturbed)


def test_a_damaged_run_is_found_and_made_again(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    config = load_config(study_file, StudyConfig)
    run_study(config, out, jobs=1, tell=lambda line: None)
    victim = next(iter(sorted(out.glob("store/runs/*/model/model.safetensors"))))
    victim.write_bytes(victim.read_bytes()[:-10])
    lines: list[str] = []
    result = run_study(config, out, jobs=1, tell=lines.append)
    assert result.computed == 1
    assert any(line.startswith("damaged: ") for line in lines)
    same_tables(out, undisturbed)


def test_a_record_that_was_torn_by_a_power_cut_is_made_again(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    shutil.copytree(undisturbed, out)
    victims = [
        next(iter(sorted(out.glob(f"store/{room}/*/run.json")))) for room in ("runs", "maps")
    ]
    for victim, content in zip(victims, ("", '{"id": '), strict=True):
        victim.write_text(content)
    lines: list[str] = []
    config = load_config(study_file, StudyConfig)
    result = run_study(config, out, jobs=1, tell=lines.append)
    assert not result.failed
    assert result.computed == 2
    assert sum("damaged: " in line for line in lines) == 2
    same_tables(out, undisturbed)


def test_equal_runs_are_shared_by_studies_in_one_store(study_file: Path, tmp_path: Path) -> None:
    config = load_config(study_file, StudyConfig, store=str(tmp_path / "store"))
    first = run_study(config, tmp_path / "one", jobs=1, tell=lambda line: None)
    wider = config.model_copy(update={"alphas": (0.5, 0.1)})
    second = run_study(wider, tmp_path / "two", jobs=1, tell=lambda line: None)
    # Baseline 1, Student and ceiling at α 0.1; the winner and its evaluations may differ.
    assert 0 < second.computed < first.computed + 3


def test_a_failing_step_is_told_and_the_rest_goes_on(study_file: Path, tmp_path: Path) -> None:
    config = load_config(study_file, StudyConfig)
    # α 0.5 diverges nowhere; an absurd rate does everywhere but leaves the process alive.
    training = config.training.model_copy(update={"lr": 1e30})
    result = run_study(
        config.model_copy(update={"training": training}), tmp_path / "out", jobs=1,
        tell=lambda line: None,
    )  # fmt: skip
    assert result.failed
    assert any("diverged" in reason for reason in result.failed.values())
    assert any("which failed" in reason for reason in result.failed.values())
    assert (tmp_path / "out" / "report.html").is_file()


def test_two_processes_on_one_folder_are_refused(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(command(study_file, out), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it holds the folder now
        with pytest.raises(InputError, match="another process"):
            run_study(load_config(study_file, StudyConfig), out, tell=lambda line: None)
        process.kill()


def test_the_plan_selects_between_stages(study_file: Path, tmp_path: Path) -> None:
    values = {"teacher_alphas": (0.5, 0.1), "data_driven": True, "alphas": (0.5, 0.1), "seeds": 2}
    config = load_config(study_file, StudyConfig).model_copy(update=values)
    plan = open_study(config, tmp_path, run=False, report_to=lambda line: None).first
    first, later = plan.outline()
    assert not plan.members
    kinds = [step.kind for step in first]
    # Baseline 1 (2 α; the Teachers are the same runs), Baseline 2, ceiling (2 α), the data-driven
    # Teacher, 3 probe Students: 9 × 2 seeds.
    assert kinds.count("train") == 18
    assert kinds.count("maps") == 6
    by_id = {step.id: step for step in [*first, *later]}
    for step in by_id.values():
        for need in step.needs:
            assert need in by_id
        if step.kind == "evaluate":
            assert step not in first
    student = next(step for step in later if step.title.startswith("train student"))
    assert {by_id[need].kind for need in student.needs} == {"maps"}


def test_selection_is_written_down(undisturbed: Path) -> None:
    choices = json.loads((undisturbed / "selection.json").read_text())
    assert set(choices) == {
        "teacher",
        *(
            f"{role}:test_byobnet"
            for role in ("student", "baseline1", "ceiling", "shuffled", "centre", "distilled",
                         "mixed")
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"primary": "test-never"}, "primary"),
        ({"positive": "other"}, "positive"),
        ({"guide_classes": ("other",)}, "guide_classes"),
        ({"annotated": 1000}, "annotated"),
        ({"maps": {"segmenter": Path("nowhere")}}, "maps.segmenter"),
        ({"teachers": ("pit_ti_224",)}, "pit_ti_224: guidance is refused"),
        ({"backbone_args": {}}, "too coarse to guide"),
        ({"training": Training(devices=2)}, "trains each run on one device"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    study_file: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    config = load_config(study_file, StudyConfig).model_copy(update=values)
    with pytest.raises(InputError, match=message):
        run_study(config, tmp_path, tell=lambda line: None)
    assert not list(tmp_path.glob("store/runs/*"))


def one_class_validation(folder: Path) -> Path:
    """25 training images, `val` of both classes, `val-unseen` of three positives."""
    manifest = squares(folder, splits={"train": 25, "val": 10, "val-unseen": 6, "test-unseen": 6})
    table = pd.read_csv(manifest, keep_default_na=False)
    table = table[(table["split"] != "val-unseen") | (table["label"] == "marked")]
    table.to_csv(manifest, index=False)
    return manifest


def test_a_validation_set_of_one_class_is_refused_or_scored_against_others(tmp_path: Path) -> None:
    settings = SETTINGS | {
        "manifest": str(one_class_validation(tmp_path / "data")), "controls": ["shuffled"],
        "alphas": [0.9, 0.5], "training": SETTINGS["training"] | {"epochs": 1},
    }  # fmt: skip
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
    done = here("study", file, "--out", tmp_path / "out", "--jobs", 1)
    assert done.code == 0, done.err
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
    told = "primary: test-unseen has no image of class marked, so it has no AUC to test"
    assert_refused(here("study", file, "--out", tmp_path / "out"), [told])


def test_the_best_epoch_by_auc_needs_sets_with_every_class(tmp_path: Path) -> None:
    manifest = one_class_validation(tmp_path / "data")
    training = {"input_size": 32, "batch_size": 8, "epochs": 3, "checkpoint": "best_auc"}
    values = {
        "manifest": manifest, "backbone": "test_byobnet", "positive": "marked",
        "backbone_args": {"output_stride": 8}, "training": training,
    }  # fmt: skip
    with pytest.raises(InputError, match="val-unseen: there is no image of class plain"):
        train(RunConfig.model_validate(values), tmp_path / "runs")
    found = train(
        RunConfig.model_validate(values | {"validation_negatives": "val"}), tmp_path / "runs"
    )
    scores = pd.read_parquet(found.folder / "scores.parquet")
    unseen = scores["split"] == "val-unseen"
    used = unseen | ((scores["split"] == "val") & (scores["label"] == "plain"))
    for name, mask in (("val-unseen", used), ("val", scores["split"] == "val")):
        value = roc_auc_score(scores["label"][mask] == "marked", scores["score_marked"][mask])
        assert found.record.metrics[f"{name}_auc"] == pytest.approx(value)


def test_three_classes_committee_given_maps_and_the_full_plan(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", classes=("none", "red", "blue"), size=(40, 32))
    values = SETTINGS | {
        "manifest": str(manifest), "positive": None, "seeds": [3, 5], "committee": 2,
        "students": ["test_byobnet", "test_resnet"],
        "backbone_args": {
            "test_byobnet": {"output_stride": 8}, "test_resnet": {"output_stride": 8},
        },
        "plan": "full", "alphas": [0.5, 0.1],
        "maps": {"segmenter": str(tmp_path / "data" / "maps")}, "human_maps": "keep",
        "selection": "val_auc", "guide_classes": ["red", "blue"], "annotated_per_seed": True,
        "training": SETTINGS["training"] | {"epochs": 1, "fit": "letterbox"},
    }  # fmt: skip
    # Given maps are named by the image's own path: they lie as the images do.
    (tmp_path / "data" / "maps").rename(tmp_path / "data" / "marks")
    table = pd.read_csv(manifest)
    table["saliency"] = table["saliency"].str.replace("maps/", "marks/")
    table.to_csv(manifest, index=False)
    (tmp_path / "data" / "maps" / "images").mkdir(parents=True)
    for mark in (tmp_path / "data" / "marks").glob("train-*.png"):
        (tmp_path / "data" / "maps" / "images" / mark.name).write_bytes(mark.read_bytes())
    result = run_study(StudyConfig.model_validate(values), tmp_path / "out", tell=lambda line: None)
    assert not result.failed
    assert result.missing == 0
    shown = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(shown["backbone"]) == {"test_byobnet", "test_resnet", "overall"}
    choice = json.loads((tmp_path / "out" / "selection.json").read_text())["teacher"]
    assert {row["name"] for row in choice["table"]} == {
        "test_byobnet human-guided α 0.5, CAM", "segmenter (given maps)",
    }  # fmt: skip


def test_a_worker_that_cannot_start_is_told_at_once(study_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from preceptor import StudyConfig, run_study\n"
        "from preceptor.config.yaml_file import load_config\n"
        f"study = load_config({str(study_file)!r}, StudyConfig)\n"
        f"result = run_study(study, {str(tmp_path / 'out')!r}, jobs=1)\n"
        "print(next(iter(result.failed.values())))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert "__main__" in done.stdout
