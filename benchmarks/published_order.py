"""A published comparison of guidance methods, trained again: accuracy by group of each method.

    python benchmarks/published_order.py FILE --to FOLDER [--seeds 0 1 2 3 4]

FILE has the config of a run (`run`), and what each method changes in it (`methods`). Runs that are
there are not trained again. Prints mean and worst group of `test` (a group is a source, or all) and
accuracy on `val-noshort` after the last epoch, the best one on `val`, and its own best one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from preceptor.config.files import read_yaml
from preceptor.config.run import RunConfig
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.inference.predict import score_sets
from preceptor.metrics.scores import figures
from preceptor.models.build import load_model
from preceptor.training.run import train


def config_of(given: dict[str, Any], method: str, seed: int) -> RunConfig:
    """Config of a run: the one of all methods, and the changes of one."""
    run, changes = dict(given["run"]), dict(given["methods"][method])
    training = run.get("training", {}) | changes.pop("training", {})
    return RunConfig.model_validate(run | changes | {"training": training, "seed": seed})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    given, _ = read_yaml(options.file.read_text(encoding="utf-8"))
    workspaces: dict[Path, Workspace] = {}
    rows, epochs = [], []
    for seed in options.seeds:
        for method in given["methods"]:
            config = config_of(given, method, seed)
            if config.manifest not in workspaces:
                manifest = Manifest.read(config.manifest, verify=False)
                workspaces[config.manifest] = Workspace(manifest, options.to / "cache")
            workspace = workspaces[config.manifest]
            done = train(config, options.to / "runs", workspace=workspace)
            file = options.to / "figures" / f"{done.id}.csv"
            file.parent.mkdir(exist_ok=True)
            if not file.exists():
                model = load_model(done.folder / "model")
                scores = score_sets(model, workspace)
                figures(scores, model.spec.classes, model.spec.positive).to_csv(file, index=False)
            rows.append(pd.read_csv(file, keep_default_na=False).assign(method=method, seed=seed))
            log = pd.read_csv(done.folder / "metrics.csv")
            shifted = log["val-noshort_accuracy"]
            chosen = {"last": shifted.iloc[-1], "by val": shifted[log["val_accuracy"].idxmax()]}
            epochs.append({"method": method, "seed": seed} | chosen | {"best": shifted.max()})
            print(f"seed {seed} {method}: {done.record.seconds:.0f} s", flush=True)
    table = pd.concat(rows)
    test = table[table["set"] == "test"]
    test = test if (test["source"] == "").all() else test[test["source"] != ""]
    each = test.groupby(["method", "seed"])["accuracy"].agg(["mean", "min"])
    each = each.join(pd.DataFrame(epochs).set_index(["method", "seed"]))
    each.to_csv(options.to / "each.csv")
    print(each.groupby("method").agg(["mean", "std", "count"]).round(3).to_string())


if __name__ == "__main__":
    main()
