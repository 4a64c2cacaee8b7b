"""Steps without a result, in the status and the summary of a study."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from preceptor.cli.output import print_status
from preceptor.execution.scheduler import Graph
from preceptor.execution.status import StudyStatus, read_status
from preceptor.report.write import write_results
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, JoinMaps, Select, Step
from tests.datasets import squares
from tests.studies import study, walk, write_down
from tests.study.scored_plan import scored_plan, write_scores


def small(folder: Path) -> StudyPlan:
    """The plan of a study of which nothing is computed."""
    manifest = squares(folder / "data", size=(8, 8))
    return StudyPlan.of(walk(study(manifest, seeds=1), folder / "store", compute=False))


def test_failed_steps_with_one_title_are_kept_apart(tmp_path: Path) -> None:
    graph = Graph(
        [
            Step("one-id", JoinMaps(()), "a committee"),
            Step("other-id", JoinMaps(()), "a committee"),
            Step("third-id", JoinMaps(()), "another", ("one-id",)),
        ]
    )
    graph.fail("one-id", "the disk is full")
    graph.fail("other-id", "it diverged")
    StudyStatus(small(tmp_path), tmp_path).count(graph)
    title = "make maps by a committee"
    assert read_status(tmp_path)[0].failed == {
        "one-id": Failure("maps", title, "the disk is full"),
        "other-id": Failure("maps", title, "it diverged"),
        "third-id": Failure(
            "maps", "make maps by another", f"needs {title}, which failed", blocked=True
        ),
    }


def test_a_step_that_has_finished_since_is_told_apart_by_its_id(tmp_path: Path) -> None:
    plan, out = small(tmp_path), tmp_path / "out"
    done = next(iter(plan.first.steps.values()))
    failed = {
        identity: Failure(done.kind, done.title, "no space left")
        for identity in (done.id, "another-id")
    }
    write_results(plan, out, failed)
    assert set(json.loads((out / "summary.json").read_text())["failed"]) == set(failed)
    write_down(plan, lambda arm, seed: arm.alpha)
    write_results(plan, out)
    assert json.loads((out / "summary.json").read_text())["failed"] == {
        "another-id": {
            "kind": "train",
            "title": done.title,
            "reason": "no space left",
            "blocked": False,
        }
    }


@pytest.mark.parametrize(
    ("best", "changes"),
    [
        (0.5, {"alphas": [0.01, 0.1, 0.5]}),
        (0.1, {"alphas": [0.5, 0.1], "generations": 2}),
        (0.1, {"alphas": [0.9, 0.1], "controls": ["centre", "pca"]}),
    ],
)
def test_a_finished_study_is_called_finished(
    best: float, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Other α are chosen than those of which the steps were foreseen."""
    plan, out = scored_plan(tmp_path, seeds=4, **changes), tmp_path / "out"
    out.mkdir()
    status, graph = StudyStatus(StudyPlan.of(plan), out), Graph(plan.first_steps())
    said = ""
    while (step := graph.take()) is not None:
        if isinstance(step.work, Select):
            graph.add(step.work.choose())
            graph.finish(step.id)
            status.chosen()
            continue
        status.started(step)
        write_scores(plan, step, lambda arm: 3 - abs(arm.alpha - best))
        graph.finish(step.id)
        said = status.finished(step, graph)
    assert said.startswith(f"[{graph.total}/{graph.total}] ")
    assert status.status.left == pytest.approx(0, abs=1e-3)
    status.count(graph)
    console = Console(file=io.StringIO(), width=100)
    print_status(*read_status(out), console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().startswith("finished")
