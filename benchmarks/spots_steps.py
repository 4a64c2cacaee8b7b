"""AUC against the number of training steps, on the preset `spots` of the built-in benchmark.

    python benchmarks/spots_steps.py --work spots [--arms baseline2 ceiling] [--draws 100]
        [--steps 350 700 1400 2800] [--stamp-place moving] [--jobs 1] [--out figures.json]

Each arm is trained at each number of steps with the small network of forged_small.yaml on crops of
64 pixels (maps of 8 × 8). Arms with maps are trained at α 0.1 and 0.5; the α with the higher AUC on
the worse of `val` and `val-noshort` is reported. 60 training images are annotated; the Teacher of
`student` and `shuffled` is Baseline 1 at its own α and the same number of steps. A finished
training is not repeated. 1,400 steps took 140 core-seconds on a busy machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
import yaml

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forged_settings import PRESETS, ForgedSettings
from preceptor.benchmark.forgeries import StampPlace
from preceptor.config.run import RunConfig
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.evaluation.paired_tests import mean_std
from preceptor.inference.annotate import annotate
from preceptor.inference.score import evaluate
from preceptor.models.model_folder import load_model
from preceptor.runtime.result_folder import write_atomically
from preceptor.training.run import train

HERE = Path(__file__).resolve().parent
ANNOTATED = 60
GRID = (0.1, 0.5)
VALIDATION, TESTS = ("val", "val-noshort"), ("test-seen", "test-unseen")


@dataclass(frozen=True)
class Arm:
    """Rows and maps of an arm.

    Args:
        title: Name in the table.
        rows: Training images: all, or annotated.
        maps: Source of the maps; a store is the Teacher's.
        shuffled: Whether the maps of the store are permuted within each class.
    """

    title: str
    rows: str = "all"
    maps: str = "none"
    shuffled: bool = False

    @property
    def alphas(self) -> tuple[float, ...]:
        return (1.0,) if self.maps == "none" else GRID


ARMS = {
    "baseline1": Arm("Baseline 1", rows="annotated", maps="human"),
    "baseline2": Arm("Baseline 2"),
    "centre": Arm("centred map", maps="centre"),
    "shuffled": Arm("shuffled maps", maps="store", shuffled=True),
    "student": Arm("Student", maps="store"),
    "ceiling": Arm("ceiling", maps="human"),
}


@dataclass(frozen=True)
class Trained:
    """AUC of an arm on each evaluation set, at the α chosen on validation."""

    alpha: float
    folder: Path
    auc: dict[str, float]

    @property
    def worst(self) -> float:
        return min(self.auc[name] for name in VALIDATION)


class Draw:
    """Trainings of one number of steps on one draw."""

    def __init__(self, work: Path, manifest: Path, seed: int, steps: int) -> None:
        self.work, self.manifest, self.seed, self.steps = work, manifest, seed, steps
        self.workspace = Workspace(Manifest.read(manifest, verify=False), work / "cache")

    def chosen(self, name: str) -> Trained:
        """The training of an arm at its best α; all of its trainings are made if necessary."""
        return max(
            (self.trained(name, alpha) for alpha in ARMS[name].alphas), key=lambda t: t.worst
        )

    def trained(self, name: str, alpha: float) -> Trained:
        run = train(self.config(ARMS[name], alpha), self.work / "runs", workspace=self.workspace)
        file = self.work / "auc" / f"{run.id}.json"
        if not file.is_file():
            model = load_model(run.folder / "model")
            table = evaluate(model, self.workspace.manifest, workspace=self.workspace)
            whole = table[table["source"] == ""].set_index("set")["auc"]
            auc = json.dumps({str(name): round(float(value), 4) for name, value in whole.items()})
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, auc)
            print(f"draw {self.seed}, {self.steps} steps, {name}, α {alpha}: {auc}", flush=True)
        return Trained(alpha, run.folder, json.loads(file.read_text(encoding="utf-8")))

    def config(self, arm: Arm, alpha: float) -> RunConfig:
        study = yaml.safe_load((HERE / "forged_small.yaml").read_text(encoding="utf-8"))
        (backbone,) = study["students"]
        changes = {"input_size": PRESETS["spots"].size, "steps": self.steps, "epochs": 1}
        maps: dict[str, Any] = {"kind": arm.maps}
        if arm.maps == "store":
            maps["path"] = self.teacher_maps()
            if arm.shuffled:
                maps["shuffle_seed"] = self.seed
        return RunConfig.model_validate(
            {
                "manifest": self.manifest,
                "backbone": backbone,
                "backbone_args": study["backbone_args"][backbone],
                "positive": study["positive"],
                "rows": arm.rows,
                "annotated": ANNOTATED if arm.rows == "annotated" else None,
                "annotated_seed": self.seed,
                "maps": maps,
                "alpha": alpha,
                "seed": self.seed,
                "training": study["training"] | changes,
            }
        )

    def teacher_maps(self) -> Path:
        teacher = self.chosen("baseline1").folder
        store = self.work / "maps" / teacher.name
        if not store.is_dir():
            model = load_model(teacher / "model")
            annotate(model, self.workspace.manifest, out=store, workspace=self.workspace)
        return store


def curve_points(
    work: Path, manifest: Path, seed: int, steps: int, arms: Sequence[str]
) -> list[dict[str, Any]]:
    """Figures of all arms on one draw at one number of steps."""
    draw = Draw(work, manifest, seed, steps)
    found = {name: draw.chosen(name) for name in arms}
    return [
        {"arm": name, "draw": seed, "steps": steps, "alpha": one.alpha, "auc": one.auc}
        for name, one in found.items()
    ]


def markdown(points: Sequence[dict[str, Any]], steps: Sequence[int], arms: Sequence[str]) -> str:
    """Table of `test-seen` / `test-unseen`, means over draws, and the α of each draw."""
    lines = [
        "| arm | " + " | ".join(f"{count:,} steps" for count in steps) + " |",
        "| --- |" + " --- |" * len(steps),
    ]
    for name in arms:
        cells = []
        for count in steps:
            here = [point for point in points if (point["arm"], point["steps"]) == (name, count)]
            means = {
                each: mean_std(np.array([point["auc"][each] for point in here])).mean
                for each in TESTS + VALIDATION
            }
            alphas = ", ".join(f"{point['alpha']:g}" for point in here)
            cells.append(
                " / ".join(f"{means[each]:.3f}" for each in TESTS)
                + (f", α {alphas}" if ARMS[name].maps != "none" else "")
                + f" (val {means['val']:.2f}, val-noshort {means['val-noshort']:.2f})"
            )
        lines.append(f"| {ARMS[name].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("spots"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["baseline2", "ceiling"])
    parser.add_argument("--draws", type=int, nargs="+", default=[100])
    parser.add_argument("--steps", type=int, nargs="+", default=[350, 700, 1400, 2800])
    parser.add_argument("--stamp-place", choices=get_args(StampPlace), default="moving")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    options = parser.parse_args()
    work = options.work.resolve() / options.stamp_place
    settings = ForgedSettings.model_validate(
        PRESETS["spots"].model_dump() | {"stamp_place": options.stamp_place}
    )
    pattern = str(write_draws(work / "draws", settings, options.draws))
    tasks = list(product(options.draws, options.steps))
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        parts = pool.map(
            curve_points,
            [work] * len(tasks),
            [Path(pattern.replace("{seed}", str(draw))) for draw, _ in tasks],
            *zip(*tasks, strict=True),
            [options.arms] * len(tasks),
        )
        points = [point for part in parts for point in part]
    record = {"settings": settings.model_dump(mode="json"), "points": points}
    if options.out:
        write_atomically(options.out, json.dumps(record, indent=1) + "\n")
    print(markdown(points, options.steps, options.arms))


if __name__ == "__main__":
    main()
