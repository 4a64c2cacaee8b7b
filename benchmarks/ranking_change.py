"""AUCs of the archived studies by float32 probabilities and by log-odds.

    python benchmarks/ranking_change.py

The archives with score tables keep the probabilities of both classes, from which both orders of the
images are computed: by the probability of the positive class, and by `log_odds`. Columns: mean AUC
on the primary set over draws or seeds by both, the largest change of one training, the largest
share of images with the score 1, and the largest possible error of the second AUC (its images with
a probability of 0 are tied, as if half of the pairs were in the wrong order).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from preceptor.evaluation.auc import auc
from preceptor.evaluation.log_odds import log_odds
from preceptor.results import read

EVIDENCE = Path(__file__).parent / "evidence"
ROWS = (
    "baseline1", "baseline2", "student", "shuffled", "centre", "pca", "shuffled_human", "masked",
    "dfr", "mapper", "mapper_all", "ceiling",
)  # fmt: skip


def main() -> None:
    """Print one line for each row of each study."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    print("| study | row | by probability | by log-odds | largest change | scores of 1 | error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for folder in sorted(path.parent for path in EVIDENCE.glob("*/store")):
        for line in _lines(folder):
            print("| " + " | ".join(line) + " |")


def _lines(folder: Path) -> list[list[str]]:
    settings = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    positive, primary = settings["positive"], settings["primary"]
    tables = read(folder)
    chosen = tables.table.drop_duplicates("key").set_index("key")["alpha"].to_dict()
    files = {
        json.loads(record.read_text(encoding="utf-8"))["run"]: record.with_name("scores.parquet")
        for record in folder.glob("store/evaluations/*/run.json")
    }
    own = tables.results[(tables.results["set"] == primary) & (tables.results["source"] == "")]
    teachers = _teachers(tables.table, own)
    lines = []
    for role in ROWS:
        rows = own[(own["role"] == role) & own["run"].isin(files.keys())]
        if role not in chosen or rows.empty:
            continue
        rows = rows[rows["alpha"] == float(chosen[role])]
        if role in teachers:
            rows = rows[rows["teacher"] == teachers[role]]
        found = pd.DataFrame([_both(files[run], positive, primary) for run in rows["run"]])
        change = (found["odds"] - found["probability"]).abs().max()
        lines.append(
            [
                folder.name, role, f"{found['probability'].mean():.3f}",
                f"{found['odds'].mean():.3f}", f"{change:.3f}", f"{found['ones'].max():.0%}",
                f"{found['error'].mean():.4f}",
            ]
        )  # fmt: skip
    return lines


def _teachers(table: pd.DataFrame, own: pd.DataFrame) -> dict[str, str]:
    """Teacher of the Students of the main table: the one with their mean AUC."""
    whole = table[(table["set"] == own["set"].iloc[0]) & (table["source"] == "")]
    means = whole.set_index("key")["mean"]
    rows = own[own["role"] == "student"]
    by_teacher = rows.groupby("teacher")["auc"].mean()
    return {"student": str((by_teacher - means["student"]).abs().idxmin())}


def _both(file: Path, positive: str, primary: str) -> dict[str, float]:
    """AUCs of one training on the primary set."""
    scores = pd.read_parquet(file)
    scores = scores[scores["split"] == primary]
    truth = (scores["label"] == positive).to_numpy()
    names = [name for name in scores if name.startswith("score_")]
    given = scores[names].to_numpy(np.float64)
    place = names.index(f"score_{positive}")
    own = given[:, place].astype(np.float32)
    ends = [own == 0, np.delete(given, place, 1).sum(1) == 0]
    return {
        "probability": auc(truth, own),
        "odds": auc(truth, log_odds(given)[:, place]),
        "ones": float((own == 1).mean()),
        "error": sum(float(one[truth].mean() * one[~truth].mean()) for one in ends) / 2,
    }


if __name__ == "__main__":
    main()
