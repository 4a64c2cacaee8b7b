"""AUC against the number of training steps, without maps and with all human maps, for a study file.

    python benchmarks/study_steps.py STUDY.yaml --work FOLDER [--steps 350 1400] [--seeds 10 11]
        [--alpha 0.5] [--jobs 2]

Whether a gap between models with and without maps closes with longer training. Baseline 2 and the
ceiling are trained with all settings of the study but the steps. Writes the AUC of each evaluation
set to FOLDER/auc.csv. A finished training is not repeated.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from preceptor.config.run import RunConfig
from preceptor.config.yaml_file import load_config
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.inference.score import evaluate
from preceptor.models.model_folder import load_model
from preceptor.study.config import StudyConfig
from preceptor.training.run import train

Maps = Literal["none", "human"]


@dataclass(frozen=True)
class Training:
    """Training of one model.

    Args:
        maps: none (Baseline 2) or human (ceiling).
        steps: Number of steps.
        seed: Seed.
    """

    maps: Maps
    steps: int
    seed: int


def auc(study_file: Path, work: Path, alpha: float, task: Training) -> dict[str, Any]:
    """AUC on each evaluation set."""
    study = load_config(study_file, StudyConfig)
    (backbone,) = study.students
    training = study.training.model_copy(update={"steps": task.steps, "epochs": 1})
    manifest = study.manifest_of(task.seed)
    config = RunConfig(
        manifest=manifest,
        backbone=backbone,
        backbone_args=study.backbone_args[backbone],
        positive=study.positive,
        maps={"kind": task.maps},
        alpha=alpha if task.maps == "human" else 1.0,
        seed=task.seed,
        training=training,
    )
    found = aucs_of(config, work)
    print(f"{task}: {found}", flush=True)
    return vars(task) | found


def aucs_of(config: RunConfig, work: Path) -> dict[str, float]:
    """AUC on each evaluation set of a run, which is trained unless it has finished.

    Args:
        config: The run.
        work: Folder of its runs and image cache.
    """
    workspace = Workspace(Manifest.read(config.manifest, verify=False), work / "cache")
    run = train(config, work / "runs", workspace=workspace)
    table = evaluate(load_model(run.folder / "model"), workspace.manifest, workspace=workspace)
    whole = table[table["source"] == ""].set_index("set")["auc"]
    return {str(name): round(float(value), 4) for name, value in whole.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", nargs="+", type=int, default=[350, 1400])
    parser.add_argument("--seeds", nargs="+", type=int, default=[10])
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    tasks = [
        Training(*one)
        for one in product(get_args(Maps), sorted(options.steps, reverse=True), options.seeds)
    ]
    measure = partial(auc, options.study.resolve(), work, options.alpha)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(measure, tasks))
    table = pd.DataFrame(found).sort_values(["maps", "steps", "seed"])
    table.to_csv(work / "auc.csv", index=False)


if __name__ == "__main__":
    main()
