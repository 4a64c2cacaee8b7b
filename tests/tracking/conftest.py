"""One tiny study that the tests of all trackers follow."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from preceptor.config.files import dump_config
from preceptor.report.write import WrittenReport, write_results
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Step
from tests.datasets import squares
from tests.studies import study, walk

TRAINING = {"input_size": 32, "epochs": 4, "batch_size": 8, "schedule": "constant"}


@dataclass(frozen=True)
class Followed:
    """A study whose runs a test may take back and give again.

    Args:
        plan: Its plans, with a store of the test's own.
        out: The study folder.
        whole: The store that has everything.
        report: The report in the study folder.
    """

    plan: StudyPlan
    out: Path
    whole: Path
    report: WrittenReport

    @property
    def trainings(self) -> list[Step]:
        return [step for step in self.plan.first.steps.values() if step.kind == "train"]

    def curves(self, step: Step) -> Path:
        return self.plan.folder(step) / "metrics.csv"

    def train(self, step: Step, epochs: int | None = None) -> None:
        """Leave what a training leaves after some epochs, or (None) when it has ended."""
        there, here = self.whole / "runs" / step.id, self.plan.folder(step)
        shutil.rmtree(here, ignore_errors=True)
        if epochs is None:
            shutil.copytree(there, here)
        else:
            here.mkdir(parents=True)
            lines = (there / "metrics.csv").read_text().splitlines(keepends=True)
            (here / "metrics.csv").write_text("".join(lines[: epochs + 1]))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, WrittenReport]:
    """The plan of a study that was run, and its report."""
    folder = tmp_path_factory.mktemp("tracked")
    config = study(
        squares(folder / "data", size=(40, 32)),
        seeds=1,
        training=TRAINING,
        controls=("centre",),
        ceiling=False,
    )
    plan = walk(config, folder / "store")
    out = folder / "out"
    out.mkdir()
    (out / "study.yaml").write_text(dump_config(config))
    return plan, write_results(StudyPlan.of(plan), out, {})


@pytest.fixture
def followed(finished: tuple[Plan, WrittenReport], tmp_path: Path) -> Followed:
    """The study in the test's own folder, none of its runs trained yet."""
    plan, report = finished
    own = replace(plan, protocol=replace(plan.protocol, store=tmp_path / "store"))
    out = tmp_path / "a study"
    shutil.copytree(report.folder, out)
    return Followed(StudyPlan.of(own), out, plan.protocol.store, replace(report, folder=out))
