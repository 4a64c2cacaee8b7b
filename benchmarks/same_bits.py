"""Does a training give the same bits again? Archived trainings, repeated from an empty store.

    PLANTED=$PWD/planted python benchmarks/same_bits.py benchmarks/evidence/brain_mri_planted \\
        --role baseline1 --alpha 0.1 --work bits

The trainings of one role of an archive are repeated. The loss of every epoch and the scores of all
validation images, and of the test images if the archive has them, are compared with the archived
ones. A training whose settings, images or maps are not those
of the archive is refused, since its id would be another. Roles with the maps of a Teacher are not
repeated, since an archive has no maps. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preceptor.config.run import RunConfig
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.evaluation.auc import auc
from preceptor.evaluation.log_odds import log_odds
from preceptor.inference.score import score_frame
from preceptor.models.model_folder import load_model
from preceptor.training.run import train


def main() -> None:
    """Print one line for each training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--role", default="baseline2")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="*", help="default: all of the archive")
    parser.add_argument("--work", type=Path, default=Path("same-bits"))
    options = parser.parse_args()
    runs = pd.read_csv(options.archive / "runs.csv", dtype={"run": str})
    runs = runs[(runs["role"] == options.role) & (runs["alpha"] == options.alpha)]
    if options.seeds:
        runs = runs[runs["seed"].isin(options.seeds)]
    if runs.empty:
        parser.error(f"{options.archive}: no training of {options.role} with α {options.alpha}")
    print("| seed | set | images | same bits | largest difference | archived AUC | AUC now |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for seed, run in zip(runs["seed"], runs["run"], strict=True):
        for cells in compared(options.archive, run, options.work):
            print("| " + " | ".join([str(seed), *cells]) + " |", flush=True)


def compared(archive: Path, run: str, work: Path) -> Iterator[list[str]]:
    """Cells of the lines of one training: its losses, and the scores of every set."""
    before = archive / "store/runs" / run
    values = json.loads((before / "run.json").read_text(encoding="utf-8"))["config"]
    for key in ("manifest", "weights"):
        values[key] = os.path.expandvars(values[key])
    if values["maps"]["path"]:
        sys.exit(f"{archive}: the maps of {run} are those of a Teacher, which are not archived")
    config = RunConfig.model_validate(values)
    workspace = Workspace(Manifest.read(config.manifest), work / "cache")
    now = train(config, work / "runs", workspace=workspace, expected_id=run).folder
    losses = [pd.read_csv(one / "metrics.csv")["loss"] for one in (before, now)]
    yield ["losses by epoch", str(len(losses[0])), *_sameness(*losses), "", ""]
    pairs = [tuple(pd.read_parquet(one / "scores.parquet") for one in (before, now))]
    for path in (archive / "store/evaluations").glob("*/run.json"):
        if json.loads(path.read_text(encoding="utf-8"))["run"] == run:
            rows = workspace.split_rows("test")
            frame = score_frame(load_model(now / "model"), workspace, rows)
            pairs.append((pd.read_parquet(path.with_name("scores.parquet")), frame))
    for archived, repeated in pairs:
        assert archived["path"].equals(repeated["path"])
        columns = [column for column in map(str, archived) if column.startswith("score_")]
        at = [column.removeprefix("score_") for column in columns].index(str(config.positive))
        for name in archived["split"].unique():
            inside = (archived["split"] == name).to_numpy()
            truth = (archived["label"] == config.positive).to_numpy()[inside]
            sides = [one.loc[inside, columns] for one in (archived, repeated)]
            areas = [auc(truth, log_odds(one.to_numpy(np.float64))[:, at]) for one in sides]
            yield [name, str(len(truth)), *_sameness(*sides), *map(repr, areas)]


def _sameness(before: Any, now: Any) -> tuple[str, str]:
    """Whether all values are the same, and the largest difference; of float32 if one side is."""
    narrow = any((np.asarray(one).dtype == np.float32) for one in (before, now))
    one, other = (
        np.asarray(np.asarray(side, np.float32 if narrow else None), np.float64)
        for side in (before, now)
    )
    same = "yes" if np.array_equal(one, other) else "no"
    return f"{same}, float32" if narrow else same, f"{np.abs(one - other).max():.2g}"


if __name__ == "__main__":
    main()
