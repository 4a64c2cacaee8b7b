"""Search by racing and by halving against the whole grid: the same choice, for how much training?

Every candidate α of Baseline 1 is trained with every seed on small draws of the forged photographs.
The searches are then replayed on the score tables of these runs: which runs each of them would have
trained, what it would have chosen, and the test AUC of that choice (mean over all seeds). Finished
runs are kept in the store; the same command continues.

    python benchmarks/racing.py OUT --draws 100 120
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forged_settings import PRESETS, ForgedSettings
from preceptor.config.run import RunConfig
from preceptor.data.workspace import Workspace
from preceptor.evaluation.scores import set_auc
from preceptor.inference.score import score_frame
from preceptor.models.model_folder import load_model
from preceptor.runtime.result_folder import read_scores
from preceptor.study.config import StudyConfig
from preceptor.study.search import survivors
from preceptor.study.selection import Candidate, choose
from preceptor.study.setting import Setting
from preceptor.training.run import train

ALPHAS = (0.9, 0.7, 0.5, 0.3, 0.1, 0.05)
SEEDS = 10
SETTINGS: ForgedSettings = PRESETS["small"].model_copy(
    update={"size": 32, "train": 200, "test_seen": 200, "test_unseen": 24}
)
TRAINING: dict[str, Any] = {
    "input_size": 32,
    "batch_size": 16,
    "length": "steps",
    "steps": 80,
    "epochs": 1,
    "optimizer": "adamw",
    "lr": 0.006,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "clip": 1.0,
    "checkpoint": "last",
    "threads": 1,
}


def candidates(manifest: Path, store: Path) -> tuple[dict[float, list[pd.DataFrame]], np.ndarray]:
    """Validation scores by α and seed, and the test AUC of each run, (α, seed)."""
    workspace = Workspace.open(manifest)
    tables: dict[float, list[pd.DataFrame]] = {}
    aucs = np.zeros((len(ALPHAS), SEEDS))
    for place, alpha in enumerate(ALPHAS):
        for seed in range(SEEDS):
            config = RunConfig.model_validate(
                {
                    "manifest": manifest,
                    "backbone": "test_byobnet",
                    "positive": "forged",
                    "backbone_args": {"output_stride": 8},
                    "rows": "annotated",
                    "annotated": 100,
                    "maps": {"kind": "human"},
                    "alpha": alpha,
                    "seed": seed,
                    "training": TRAINING,
                }
            )
            run = train(config, store, workspace=workspace)
            tables.setdefault(alpha, []).append(read_scores(run.folder))
            file = run.folder.parent / f"{run.id}.test.json"
            if not file.is_file():
                rows = workspace.split_rows("test")
                frame = score_frame(load_model(run.folder / "model"), workspace, rows, "memmap")
                seen = frame[frame["split"] == "test-seen"]
                file.write_text(json.dumps(set_auc(seen, ["authentic", "forged"], "forged")))
            aucs[place, seed] = json.loads(file.read_text())
    return tables, aucs


def replay(tables: dict[float, list[pd.DataFrame]], search: str) -> tuple[float, int]:
    """The α that a search chooses, and the number of its runs."""
    study = StudyConfig.model_validate(
        {"manifest": "m", "teachers": ["a"], "students": ["a"], "seeds": SEEDS, "search": search}
    )
    left, trained = list(ALPHAS), 0
    before = 0
    for rung in study.rungs:
        trained += len(left) * (rung - before)
        before = rung
        choice = choose(
            [Candidate(f"{alpha}", Setting(alpha), tables[alpha][:rung]) for alpha in left],
            classes=["authentic", "forged"],
            positive="forged",
            rule=study.selection,
        )
        if rung < SEEDS:
            assert study.search != "grid"
            left = [float(name) for name in survivors(choice, study.selection, study.search)]
    return choice.setting.alpha, trained


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", nargs=2, type=int, default=(100, 120), metavar=("FROM", "TO"))
    arguments = parser.parse_args()
    lines = []
    for draw in range(*arguments.draws):
        started = time.process_time()
        pattern = write_draws(arguments.out / "forged", SETTINGS, [draw])
        manifest = Path(str(pattern).replace("{seed}", str(draw)))
        tables, aucs = candidates(manifest, arguments.out / "store")
        line: dict[str, Any] = {"draw": draw, "best": aucs.mean(1).max()}
        for search in ("grid", "racing", "halving"):
            alpha, runs = replay(tables, search)
            line |= {
                f"{search}_alpha": alpha,
                f"{search}_auc": aucs[ALPHAS.index(alpha)].mean(),
                f"{search}_runs": runs / (len(ALPHAS) * SEEDS),
            }
        lines.append(line | {"seconds": time.process_time() - started})
        table = pd.DataFrame(lines)
        table.to_csv(arguments.out / "racing.csv", index=False)
        print(table.tail(1).to_string(header=len(lines) == 1, index=False), flush=True)
    for search in ("racing", "halving"):
        same = (table[f"{search}_alpha"] == table["grid_alpha"]).mean()
        loss = table["grid_auc"] - table[f"{search}_auc"]
        print(
            f"{search}: {table[f'{search}_runs'].mean():.0%} of the trainings; same choice in "
            f"{same:.0%} of {len(table)} draws; test AUC lower by {loss.mean():.4f} in the mean, "
            f"{loss.max():.4f} at most; within 0.005 or the same in "
            f"{((loss <= 0.005) | (table[f'{search}_alpha'] == table['grid_alpha'])).mean():.0%}"
        )


if __name__ == "__main__":
    main()
