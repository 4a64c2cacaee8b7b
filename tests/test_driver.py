"""A whole study with real worker processes: what it leaves, and that nothing can be lost."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from preceptor.config.files import load_config
from preceptor.driver import run_study
from preceptor.errors import InputError
from preceptor.models.build import load_model
from preceptor.study.config import StudyConfig
from preceptor.study.plan import outline
from preceptor.study_folder import open_study
from preceptor.utils.leases import lease
from tests import forked
from tests.commands import assert_refused, here
from tests.datasets import squares
from tests.forked import Forked
from tests.studies import SETTINGS, run_serially, same_tables


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    squares(folder / "data")
    file = folder / "study.yaml"
    values = SETTINGS | {"manifest": "data/manifest.csv", "controls": ["pca", "mixed"]}
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture(scope="module")
def undisturbed(study_file: Path) -> Path:
    out = study_file.parent / "undisturbed"
    done = forked.run(forked.command, ["study", study_file, "--out", out, "--jobs", 1])
    assert done.returncode == 0, done.stderr
    return out


def test_the_table_has_every_side(undisturbed: Path) -> None:
    table = pd.read_csv(undisturbed / "table.csv")
    primary = table[(table["set"] == "test-unseen") & table["source"].isna()]
    rows = ["baseline1_paper", "baseline1", "baseline2", "student", "pca", "mixed", "ceiling"]
    assert list(primary["key"]) == rows
    assert primary["mean"].between(0, 1).all()
    assert set(table["set"]) == {"val", "test", "test-unseen"}
    assert load_model(undisturbed / "best").spec.thresholds.keys() == {"eer"}
    html = (undisturbed / "report.html").read_text()
    assert "test-unseen" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_a_file_in_the_place_of_the_study_folder(study_file: Path) -> None:
    done = here("study", study_file, "--out", study_file)
    assert_refused(done, [f"--out {study_file}: it is a file; name a folder"])


def test_again_nothing_is_repeated(study_file: Path, undisturbed: Path) -> None:
    runs = {file: file.stat().st_mtime_ns for file in undisturbed.glob("store/*/*/run.json")}
    lines: list[str] = []
    result = run_study(load_config(study_file, StudyConfig), undisturbed, tell=lines.append)
    assert result.computed == 0
    for file, written in runs.items():
        assert file.stat().st_mtime_ns == written


def test_the_report_is_written_again_when_seconds_of_annotation_are_filled_in(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(study_file.parent, tmp_path / "study")
    manifest, out = tmp_path / "study" / "data" / "manifest.csv", tmp_path / "study" / "undisturbed"
    config = load_config(tmp_path / "study" / "study.yaml", StudyConfig)
    written = []
    for seconds in (None, None, 5.0):
        if seconds is not None:
            pd.read_csv(manifest).assign(annotation_seconds=seconds).to_csv(manifest, index=False)
        assert run_serially(config, out).computed == 0
        written.append((out / "report.html").stat().st_mtime_ns)
    assert written[0] == written[1] < written[2]


def test_killed_at_two_moments_the_table_is_the_same(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    for jobs, lines_before in ((1, 1), (2, 4)):
        arguments = ["study", study_file, "--out", out, "--jobs", jobs]
        with Forked(forked.command, arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for count, _ in enumerate(process.stdout):
                if count == lines_before:
                    process.send_signal(signal.SIGKILL)
                    break
    done = forked.run(forked.command, ["study", study_file, "--out", out, "--jobs", 2])
    assert done.returncode == 0, done.stderr
    same_tables(out, undisturbed)


def test_what_was_damaged_or_torn_by_a_power_cut_is_found_and_made_again(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    config = load_config(study_file, StudyConfig)
    shutil.copytree(undisturbed, out)
    one, other, *_ = sorted(out.glob("store/runs/*"))
    victim = one / "model" / "model.safetensors"
    victim.write_bytes(victim.read_bytes()[:-10])
    (other / "run.json").write_text("")
    next(iter(sorted(out.glob("store/maps/*/run.json")))).write_text('{"id": ')
    (out / "results.csv").write_text("of the damaged run")
    lines: list[str] = []
    result = run_serially(config, out, lines.append)
    assert not result.failed
    assert result.computed == 3
    assert sum("damaged: " in line for line in lines) == 3
    same_tables(out, undisturbed)


def test_equal_runs_are_shared_by_studies_in_one_store(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(undisturbed / "store", tmp_path / "store")
    first = len(list(store.glob("*/*/run.json")))
    config = load_config(study_file, StudyConfig, store=str(store))
    wider = config.model_copy(update={"alphas": (0.5, 0.1), "controls": (), "ceiling": False})
    second = run_serially(wider, tmp_path / "two")
    # Baseline 1 and Student at α 0.1; the winner and its evaluations may differ.
    assert not second.failed
    assert 2 <= second.computed <= 4
    assert len(list(store.glob("*/*/run.json"))) == first + second.computed


def test_a_failing_step_is_told_and_the_rest_goes_on(study_file: Path, tmp_path: Path) -> None:
    config = load_config(study_file, StudyConfig)
    # α 0.5 diverges nowhere; an absurd rate does everywhere but leaves the process alive.
    training = config.training.model_copy(update={"lr": 1e30})
    values = {"training": training, "controls": ("shuffled",), "ceiling": False}
    result = run_serially(config.model_copy(update=values), tmp_path / "out")
    assert result.failed
    assert any("diverged" in one.reason for one in result.failed.values())
    assert any(one.blocked and "which failed" in one.reason for one in result.failed.values())
    assert (tmp_path / "out" / "report.html").is_file()


def test_two_processes_on_one_folder_are_refused(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with lease(out / "study"):  # as a process does that runs the study
        refused = here("study", study_file, "--out", out, "--jobs", 1)
    assert_refused(refused, [f"another process is running this study ({socket.gethostname()}, "])
    assert not (out / "study.yaml").exists()


def test_the_plan_selects_between_stages(study_file: Path, tmp_path: Path) -> None:
    values = {"teacher_alphas": (0.5, 0.1), "data_driven": True, "alphas": (0.5, 0.1), "seeds": 2}
    config = load_config(study_file, StudyConfig).model_copy(update=values)
    plan = open_study(config, tmp_path, run=False, report_to=lambda line: None).first
    first, later = outline(plan)
    assert not plan.members
    kinds = [step.kind for step in first]
    # Baseline 1 (2 α; the Teachers are the same runs), Baseline 2, ceiling (2 α), the data-driven
    # Teacher, probe Students of 3 Teachers at 2 α: 12 × 2 seeds.
    assert kinds.count("train") == 24
    assert kinds.count("maps") == 6
    by_id = {step.id: step for step in [*first, *later]}
    for step in by_id.values():
        for need in step.needs:  # the last round of a selection is added after the others
            assert need in by_id or need.startswith("select:")
        if step.kind == "evaluate":
            assert step not in first
    student = next(step for step in by_id.values() if step.title.startswith("train student"))
    assert {by_id[need].kind for need in student.needs} == {"maps"}


def test_selection_is_written_down(undisturbed: Path) -> None:
    choices = json.loads((undisturbed / "selection.json").read_text())
    assert set(choices) == {
        "teacher",
        *(f"{role}:test_byobnet" for role in ("student", "baseline1", "ceiling", "pca", "mixed")),
    }


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
    ],
)
def test_what_cannot_work_is_refused_before_training(
    study_file: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    config = load_config(study_file, StudyConfig).model_copy(update=values)
    with pytest.raises(InputError, match=message):
        run_study(config, tmp_path, tell=lambda line: None)
    assert not list(tmp_path.glob("store/runs/*"))


def test_a_worker_that_cannot_start_is_told_at_once(study_file: Path, tmp_path: Path) -> None:
    """A worker runs the script again, up to the start of a process; perhaps without its imports."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import multiprocessing\n"
        "if __name__ == '__mp_main__':\n"
        "    multiprocessing.get_context('spawn').Process().start()\n"
        "from preceptor import StudyConfig, run_study\n"
        "from preceptor.config.files import load_config\n"
        f"study = load_config({str(study_file)!r}, StudyConfig)\n"
        "def tell(line):\n"
        "    print(line)\n"
        "    if line.startswith('FAILED'):\n"
        "        raise SystemExit\n"
        f"run_study(study, {str(tmp_path / 'out')!r}, jobs=1, tell=tell)\n"
    )
    done = forked.run(forked.script, [script])
    told = done.stdout.splitlines()[-1]
    assert told.startswith("FAILED")
    assert "__main__" in told
