"""Small studies in tests: their configs, running them in this process, comparing their tables."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from preceptor.data.workspace import Workspace
from preceptor.driver import StudyResult, run_study
from preceptor.execution.perform import Event, WorkerContext, carry_out, perform
from preceptor.execution.scheduler import Graph
from preceptor.metrics.scores import set_auc
from preceptor.metrics.split_names import SplitKind
from preceptor.results.domain import Results, results_of
from preceptor.results.record import Setup, StudyRecord, record_of
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.protocol import Protocol
from preceptor.study.steps import Arm, Evaluate, JoinMaps, Role, Select, Selection, Step, Train
from preceptor.study.workspaces import Workspaces
from preceptor.training.record import RunRecord, SetMetrics, flat_metrics
from preceptor.utils.results import finish
from tests.datasets import SHORT, SQUARES_STUDY, squares

RECORD = RunRecord(
    id="c0ffee",
    config={},
    classes=("real", "fake"),
    input_size=32,
    grid=(4, 4),
    saliency="cam",
    training_images=24,
    guided_images=12,
    uninformative_maps=0,
    images_seen=24,
    best_epoch=1,
    metrics={"epoch": 2.0, "loss": 0.5, "val_accuracy": 0.75, "val_auc": 0.875},
    seconds=1.0,
    device="cpu",
    versions={},
)
"""Record of a run, from which those of other runs are made."""


def record_with(
    primary: str, classes: tuple[str, ...], positive: str | None, **changes: Any
) -> StudyRecord:
    """Record of a domain without members, for results whose tables a test writes itself."""
    setup = Setup(
        domain="",
        classes=classes,
        positive=positive,
        sets=(primary,),
        students=(),
        teachers=(),
        seeds=(),
        draws=False,
        negatives=None,
        threshold="eer",
        dfr_set=None,
        rows=(),
        choices=(),
    )
    return StudyRecord(replace(setup, **changes), (), {}, lambda member: (None, None))


# A study file's settings; each test adds the manifest.
SETTINGS: dict[str, Any] = SQUARES_STUDY | {"seeds": 1, "training": SHORT}
TABLES = ("results.csv", "table.csv", "summary.md", "comparisons.csv", "selection.json")


def study(manifest: Path, **values: Any) -> StudyConfig:
    """A config of one α and no data-driven Teacher, trained for one epoch."""
    training = {"input_size": 32, "epochs": 1, "batch_size": 8, "schedule": "constant"}
    settings = SQUARES_STUDY | {"manifest": manifest, "seeds": 2, "training": training}
    return StudyConfig.model_validate(settings | values)


def walk(config: StudyConfig, store: Path, *, compute: bool = True) -> Plan:
    """The plan of a study, its steps done in this process, without workers."""
    workspaces = Workspaces.of_study(config, store)
    plan = Plan(Protocol(config, workspaces, store))
    graph = Graph(plan.first_steps())
    if compute:
        do_all(graph, store, workspaces)
    return plan


def do_all(graph: Graph, store: Path, workspaces: Workspaces) -> None:
    """Every step of a graph, in this process."""
    while step := graph.take():
        if isinstance(step.work, Select):
            graph.add(step.work.choose())
        else:
            perform(step, store, workspaces)
        graph.finish(step.id)


def run_serially(
    config: StudyConfig, out: Path, tell: Callable[[str], None] = lambda line: None
) -> StudyResult:
    """Run a study with its steps in this process, where a worker would first import torch."""
    with without_workers():
        return run_study(config, out, jobs=1, tell=tell)


def without_workers() -> AbstractContextManager[Any]:
    """Context in which a study does its steps in this process."""
    return mock.patch(
        "preceptor.driver.open_executor", lambda context, *_, **__: SerialExecutor(context)
    )


class SerialExecutor:
    """Executes steps in this process, one after the other, when their events are read."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = replace(context, hang_timeout=math.inf)  # a hang would end the caller
        self._step: Step | None = None

    @property
    def free(self) -> int:
        return int(self._step is None)

    def start(self, step: Step) -> None:
        self._step = step

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        step, self._step = self._step, None
        if step is not None:
            heard: list[Event] = []
            end = carry_out(step, self._context, heard.append)
            yield from (*heard, end)

    def close(self) -> None:
        pass


def same_tables(one: Path, other: Path) -> None:
    """Assert that two study folders hold the same tables, byte for byte."""
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


Effect = Callable[[Arm, int], float]


def write_down(study: StudyPlan, effect: Effect, model: Path | None = None) -> None:
    """The results of a study, written down and not computed: nothing is trained."""
    graph = Graph(study.start())
    while step := graph.take():
        if isinstance(step.work, Select):
            graph.add(step.work.choose())
        elif not study.is_finished(step):
            _write_result(study, step, effect, model)
        graph.finish(step.id)


def scored_study(
    folder: Path, effect: Effect, splits: dict[str, int], *, sources: bool = True, **values: Any
) -> Plan:
    """The plan of a study whose scores are written down."""
    manifest = squares(folder / "data", splits=splits, size=(8, 8))
    if not sources:
        table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
        table.drop(columns="source").to_csv(manifest, index=False)
    plan = walk(study(manifest, **values), folder / "store", compute=False)
    write_down(StudyPlan.of(plan), effect)
    return plan


def _write_result(study: StudyPlan, step: Step, effect: Effect, model: Path | None) -> None:
    """The folder of a step, with the scores of its validation or test images."""
    folder = study.folder(step)
    folder.mkdir(parents=True)
    if not isinstance(step.work, Train | Evaluate):
        finish(folder, {"id": step.id, "kind": "maps", "seconds": 1.0})
        return
    run = step.id if isinstance(step.work, Train) else step.work.run
    protocol, member = next(
        (plan.protocol, one) for plan in study for one in plan.members if one.run == run
    )
    scores = _scores(
        protocol.workspaces.at(member.manifest),
        "val" if isinstance(step.work, Train) else "test",
        protocol.study.positive or "",
        effect(member.arm, member.seed),
        member.seed,
    )
    scores.to_parquet(folder / "scores.parquet", index=False)
    if isinstance(step.work, Evaluate):
        finish(folder, {"id": step.id, "kind": "evaluation", "run": run, "seconds": 1.0})
        return
    classes = protocol.workspace.manifest.classes
    agreement = 0.5 + (member.seed + (member.arm.annotated or 0)) / 100
    measures = {
        str(name): SetMetrics(0.5, set_auc(part, classes, protocol.study.positive), agreement)
        for name, part in scores.groupby("split")
    }
    config = step.work.config.model_dump(mode="json")
    (folder / "config.yaml").write_text(json.dumps(config))  # which is YAML, and soon written
    if model is not None:
        shutil.copytree(model, folder / "model")
    record = replace(RECORD, id=run, config=config, classes=tuple(classes))
    replace(record, metrics=flat_metrics(measures)).write(folder)


def _scores(
    workspace: Workspace, kind: SplitKind, positive: str, effect: float, seed: int
) -> pd.DataFrame:
    """The score table of the validation or test images."""
    table = workspace.manifest.table
    logits = np.random.default_rng(seed).normal(size=len(table))
    logits += effect * (table["label"] == positive).to_numpy(float)
    probability = 1 / (1 + np.exp(-logits))
    rows = workspace.split_rows(kind)
    scores = {
        f"score_{name}": (probability if name == positive else 1 - probability)[rows]
        for name in workspace.manifest.classes
    }
    return _images(workspace, kind).assign(**scores)


@lru_cache(maxsize=8)
def _images(workspace: Workspace, kind: SplitKind) -> pd.DataFrame:
    """What a score table says of each image."""
    table = workspace.manifest.table.iloc[workspace.split_rows(kind)].reset_index(drop=True)
    columns = {"path": table["name"]}
    return pd.DataFrame(
        columns | {key: table[key] for key in ("label", "split", "source", "group")}
    )


def plain_step(name: str, *needs: str, cost: float = 1.0) -> Step:
    """A step of a graph that is never computed."""
    return Step(name, JoinMaps(()), name, needs, cost=cost)


def selection_step(
    role: Role, needs: tuple[str, ...] = (), choose: Callable[[], list[Step]] = list
) -> Step:
    """A selection, and the steps that it adds."""
    selection = Selection("", role)
    return Step(selection.step_id, Select(selection, choose), role, needs)


def gather(plan: Plan) -> Results:
    """Results of all finished steps of one domain."""
    return results_of(record_of(plan))
