"""Studies whose trainings are replaced by score tables of known separation.

Which candidate is best, and by how much, is then known; everything else (plan, selection, graph,
files) is real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preceptor.config.files import parse_config
from preceptor.execution.scheduler import Graph
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.steps import Arm, Select, Step, Train
from preceptor.study.workspaces import Workspaces
from preceptor.utils.results import finish
from tests.datasets import SQUARES_STUDY, squares

ALPHAS = [0.9, 0.5, 0.3, 0.1]
SEEDS = 6


def table(separation: float, seed: int, images: int = 60) -> pd.DataFrame:
    """Validation scores whose classes are so many standard deviations apart."""
    generator = np.random.default_rng(seed)
    label = np.tile(["marked", "plain"], images // 2)
    score = generator.normal(separation * (label == "marked"), 1)
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(images)],
            "label": label,
            "split": "val",
            "source": "",
            "group": "",
            "score_marked": score,
            "score_plain": -score,
        }
    )


def scored_plan(folder: Path, **changes: Any) -> Plan:
    """The plan of a study of which nothing has been done."""
    values = SQUARES_STUDY | {
        "manifest": str(squares(folder / "data")),
        "primary": "test",
        "annotated": None,
        "alphas": ALPHAS,
        "seeds": SEEDS,
        "controls": ["centre"],
        "training": {"input_size": 32},
    }
    study = parse_config(values | changes, StudyConfig)
    return Plan(Protocol(study, Workspaces.of_study(study, folder / "store"), folder / "store"))


def write_scores(plan: Plan, step: Step, separation: Callable[[Arm], float]) -> None:
    """The result of a training, in place of the training; of other steps nothing."""
    if isinstance(step.work, Train):
        made = step.folder(plan.protocol.store)
        made.mkdir(parents=True)
        apart = separation(step.work.arm)
        table(apart, step.work.config.seed).to_parquet(made / "scores.parquet")
        finish(made, {"metrics": {"epoch": 1, "val_auc": 0.5}})


def finished(
    folder: Path, separation: Callable[[Arm], float], **changes: Any
) -> tuple[Plan, dict[str, Train]]:
    """A study whose trainings have the given separation, and the trainings that it asked for."""
    plan = scored_plan(folder, **changes)
    graph, trained = Graph(plan.first_steps()), dict[str, Train]()
    while (step := graph.take()) is not None:
        if isinstance(step.work, Select):
            graph.add(step.work.choose())
        elif isinstance(step.work, Train):
            trained[step.id] = step.work
            write_scores(plan, step, separation)
        graph.finish(step.id)
    assert len(graph.done) == len(graph.steps)
    return plan, trained
