"""Steps without a result, in the status and the summary of a study."""

from __future__ import annotations

import json
from pathlib import Path

from preceptor.execution.graph import Graph
from preceptor.execution.status import StudyStatus, read_status
from preceptor.report.write import write_results
from preceptor.study.steps import AverageMaps, Failure, Step
from preceptor.study.study_plan import StudyPlan
from tests.datasets import squares
from tests.studies import study, walk, write_down


def small(folder: Path) -> StudyPlan:
    """The plan of a study of which nothing is computed."""
    manifest = squares(folder / "data", size=(8, 8))
    return StudyPlan.of(walk(study(manifest, seeds=1), folder / "store", compute=False))


def test_failed_steps_with_one_title_are_kept_apart(tmp_path: Path) -> None:
    graph = Graph(
        [
            Step("one-id", AverageMaps(()), "a committee"),
            Step("other-id", AverageMaps(()), "a committee"),
            Step("third-id", AverageMaps(()), "another", ("one-id",)),
        ]
    )
    graph.fail("one-id", "the disk is full")
    graph.fail("other-id", "it diverged")
    StudyStatus(small(tmp_path), tmp_path).count(graph)
    title = "average maps of a committee"
    assert read_status(tmp_path)[0].failed == {
        "one-id": Failure("committee", title, "the disk is full"),
        "other-id": Failure("committee", title, "it diverged"),
        "third-id": Failure(
            "committee", "average maps of another", f"needs {title}, which failed", blocked=True
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
