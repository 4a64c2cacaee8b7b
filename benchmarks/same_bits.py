"""Does a training give the same bits again? Archived trainings, repeated from an empty store.

    PLANTED=planted python benchmarks/same_bits.py benchmarks/evidence/brain_mri_planted \\
        --role baseline1 --alpha 0.1 --work bits

The trainings of one role of an archive are repeated, and the scores of all validation and test
images are compared with the archived ones. A training whose settings, images or maps are not those
of the archive is refused, since its id would be another. Roles with the maps of a Teacher are not
repeated, since an archive has no maps. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from preceptor.config.run import RunConfig
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.evaluation.auc import auc
from preceptor.evaluation.log_odds import log_odds
from preceptor.inference.score import score_sets
from preceptor.models.model_folder import load_model
from preceptor.training.run import train


def main() -> None:
    """Print one line for each training, and the mean AUC of both sides."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--role", default="baseline2")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="*", help="default: all of the archive")
    parser.add_argument("--set", default="test-unseen", help="set of the AUC that is printed")
    parser.add_argument("--work", type=Path, default=Path("same-bits"))
    options = parser.parse_args()
    runs = pd.read_csv(options.archive / "runs.csv", dtype={"run": str})
    runs = runs[(runs["role"] == options.role) & (runs["alpha"] == options.alpha)]
    if options.seeds:
        runs = runs[runs["seed"].isin(options.seeds)]
    if runs.empty:
        parser.error(f"{options.archive}: no training of {options.role} with α {options.alpha}")
    print(
        "| seed | scores | of which the same bits | largest difference | archived AUC | AUC now |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    pairs = []
    for seed, run in zip(runs["seed"], runs["run"], strict=True):
        pairs.append(repeated(options.archive, run, options.work, int(seed), options.set))
    before, now = np.array(pairs).mean(axis=0)
    print(f"mean AUC on {options.set}: archived {before!r}, now {now!r}")


def repeated(archive: Path, run: str, work: Path, seed: int, name: str) -> tuple[float, float]:
    """Print the line of one training; its archived AUC and the one of now."""
    record = json.loads((archive / "store/runs" / run / "run.json").read_text(encoding="utf-8"))
    values = record["config"]
    values["manifest"] = os.path.expandvars(values["manifest"])
    values["weights"] = os.path.expandvars(values["weights"])
    config = RunConfig.model_validate(values)
    workspace = Workspace(Manifest.read(config.manifest), work / "cache")
    folder = train(config, work / "runs", workspace=workspace, expected_id=run).folder
    scores = score_sets(load_model(folder / "model"), workspace)
    archived = pd.concat([
        pd.read_parquet(archive / "store/runs" / run / "scores.parquet"),
        *(
            pd.read_parquet(path.with_name("scores.parquet"))
            for path in (archive / "store/evaluations").glob("*/run.json")
            if json.loads(path.read_text(encoding="utf-8"))["run"] == run
        ),
    ]).drop_duplicates(["split", "path"])  # fmt: skip
    both = archived.merge(scores, on=["split", "path"], suffixes=("_before", "_now"))
    assert len(both) == len(archived)
    columns = [column for column in map(str, archived) if column.startswith("score_")]
    before, now = (both[[f"{c}_{side}" for c in columns]] for side in ("before", "now"))
    same = (before.to_numpy() == now.to_numpy()).all(axis=1)
    largest = np.abs(before.to_numpy() - now.to_numpy()).max()
    inside = both["split"] == name
    truth = (both.loc[inside, "label_before"] == config.positive).to_numpy()
    at = [column.removeprefix("score_") for column in columns].index(config.positive or "")
    found = [
        auc(truth, log_odds(side.to_numpy()[inside.to_numpy()].astype(np.float64))[:, at])
        for side in (before, now)
    ]
    print(
        f"| {seed} | {len(both):,} | {int(same.sum()):,} | {largest:.2g} | {found[0]!r} | "
        f"{found[1]!r} |",
        flush=True,
    )
    return found[0], found[1]


if __name__ == "__main__":
    main()
