"""Strength of a planted stamp, size and steps for brain_mri_planted.yaml: the development runs.

    python benchmarks/brain_mri_choices.py BRAIN_MRI/manifest.csv --work choices [--jobs 2]
        [--settings 32/64/700 64/64/700 128/64/350 128/64/700 128/64/1400 128/96/350] [--seeds 0]

A setting is strength/size/steps. For each, the stamp is planted at a random place on all tumor
slices of `train` and `val`; Baseline 2 and the ceiling at α 0.5 and 0.1 are trained on it. Writes
the AUC of each evaluation set to WORK/auc.csv. A finished training is not repeated. 700 steps at
64 px took 65 s in one of two processes.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from study_steps import aucs_of

from preceptor.config.run import RunConfig
from preceptor.data.manifest import Manifest
from preceptor.data.plant import PlantSettings, plant

STUDY = Path(__file__).resolve().parent / "brain_mri_planted.yaml"
SETTINGS = ("32/64/700", "64/64/700", "128/64/350", "128/64/700", "128/64/1400", "128/96/350")
ROWS = (("none", 1.0), ("human", 0.5), ("human", 0.1))


@dataclass(frozen=True)
class Training:
    """Training of one row.

    Args:
        strength: Contrast of the stamp in gray levels of 255.
        size: Side of the input in pixels.
        steps: Number of steps.
        seed: Seed.
        maps: none (Baseline 2) or human (ceiling).
        alpha: Weight of the classification.
    """

    strength: int
    size: int
    steps: int
    seed: int
    maps: str
    alpha: float


def auc(work: Path, task: Training) -> dict[str, Any]:
    """AUC on each evaluation set."""
    study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    (backbone,) = study["students"]
    manifest = work / f"stamp {task.strength}" / "manifest.csv"
    config = RunConfig.model_validate(
        {
            "manifest": manifest,
            "backbone": backbone,
            "backbone_args": study["backbone_args"][backbone],
            "positive": study["positive"],
            "maps": {"kind": task.maps},
            "alpha": task.alpha,
            "seed": task.seed,
            "training": study["training"]
            | {"input_size": task.size, "steps": task.steps, "epochs": 1, "readout": "none"},
        }
    )
    found = aucs_of(config, work)
    print(f"{task}: {found}", flush=True)
    return vars(task) | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(exist_ok=True)
    settings = [tuple(map(int, one.split("/"))) for one in options.settings]
    for strength in {strength for strength, _, _ in settings}:
        if not (work / f"stamp {strength}").is_dir():
            plant(
                Manifest.read(options.manifest),
                work / f"stamp {strength}",
                PlantSettings(place="moving", strength=strength),
            )
    tasks = [
        Training(*setting, seed, maps, alpha)
        for setting, seed, (maps, alpha) in product(settings, options.seeds, ROWS)
    ]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(partial(auc, work), tasks))
    pd.DataFrame(found).to_csv(work / "auc.csv", index=False)


if __name__ == "__main__":
    main()
