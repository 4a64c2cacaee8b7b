"""What keeps a Student from the ceiling: its Teacher's wrong maps, replaced by human ones.

    SPOTS=$PWD/spots python benchmarks/repaired_maps.py STUDY --draws 0 1 2 --work repaired \\
        [--jobs 2]

STUDY is a finished folder of spots_evidence.yaml with its map stores. For each draw, the Student is
trained again with other maps and everything else as in the study, at its α there:

  worst     human maps for the quarter of the marked images on which the Teacher's map correlates
            least with the human one; the Teacher's maps for all other images
  random    the same number of human maps, for marked images drawn at random
  marked    the Teacher's maps for the marked class alone, as the ceiling has no maps for the other

The human maps of the whole training set are used to find the worst quarter, so that this is an
experiment on causes, and no method. The manifests of the arms are written into the folders of the
draws. A finished training is not repeated.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from preceptor.config.run import RunConfig
from preceptor.config.yaml_file import parse_config
from preceptor.data.loader import MapTargets
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.inference.score import evaluate
from preceptor.maps.store import read_store
from preceptor.models.model_folder import load_model
from preceptor.results import read
from preceptor.runtime.result_folder import write_atomically
from preceptor.saliency.agreement import correlation
from preceptor.training.run import train

ARMS = ("worst", "random", "marked")
SETS = ("val", "val-noshort", "test-seen", "test-unseen")


def student_config(study: Path, draw: int) -> RunConfig:
    """Run config of the study's Student of a draw, at its α and with the maps of its Teacher."""
    tables = read(study)
    (row,) = tables.table[
        (tables.table["key"] == "student")
        & (tables.table["set"] == "test-seen")
        & (tables.table["source"] == "")
    ].to_dict("records")
    selection = json.loads((study / "selection.json").read_text(encoding="utf-8"))
    found = tables.results[
        (tables.results["role"] == "student")
        & (tables.results["alpha"] == float(row["alpha"]))
        & (tables.results["teacher"] == selection["teacher"]["winner"])
        & (tables.results["seed"] == draw)
    ]
    (run,) = set(found["run"])
    record = json.loads((study / "store" / "runs" / run / "run.json").read_text(encoding="utf-8"))
    return parse_config(record["config"], RunConfig, base=study)


def agreements(workspace: Workspace, config: RunConfig, marked: np.ndarray) -> np.ndarray:
    """Correlation of the Teacher's map with the human one, for rows of the manifest."""
    assert config.maps.path is not None
    store = read_store(config.maps.path)
    order = pd.Index(store.paths).get_indexer(workspace.manifest.table["name"].iloc[marked])
    assert (order >= 0).all()
    maps = torch.from_numpy(store.maps[order].astype(np.float32))
    form = config.training.image_format(config.training.input_size or 0)
    targets = MapTargets.human(np.ones(len(marked), np.float32))
    rows = workspace.rows(marked, form, targets=targets, grid=tuple(maps.shape[1:]))
    values, valid = correlation(maps, rows.maps_on_grid(np.arange(len(marked))))
    assert valid.all()
    return values.numpy()


def arm_config(arm: str, config: RunConfig, work: Path) -> RunConfig:
    """Run config of an arm; writes the manifest whose annotated images keep their human maps."""
    if arm == "marked":
        return config.model_copy(update={"guide_classes": (config.positive,)})
    manifest = Manifest.read(config.manifest, verify=False)
    has_map = (manifest.table["saliency"] != "").to_numpy()
    marked = np.flatnonzero(manifest.train_mask & has_map)
    count = len(marked) // 4
    if arm == "worst":
        values = agreements(Workspace(manifest, work / "cache"), config, marked)
        kept = marked[np.argsort(values, kind="stable")[:count]]
        print(
            f"seed {config.seed}: correlation of the Teacher's maps, means of the quarters: "
            + ", ".join(f"{one.mean():.3f}" for one in np.array_split(np.sort(values), 4)),
            flush=True,
        )
    else:
        kept = np.random.default_rng(config.seed).choice(marked, count, replace=False)
    table = pd.read_csv(config.manifest, dtype=str, keep_default_na=False)
    others = manifest.train_mask.copy()
    others[kept] = False
    table.loc[others, ["saliency", "annotated"]] = ["", "0"]
    # Beside the manifest of the draw, since the store names images as that manifest does.
    target = config.manifest.with_name(f"repaired-{arm}.csv")
    table.to_csv(target, index=False)
    maps = config.maps.model_copy(update={"human": "keep"})
    return config.model_copy(update={"manifest": target, "maps": maps})


def trained(study: Path, work: Path, draw: int, arm: str) -> dict[str, float]:
    """AUC on each evaluation set of an arm of a draw."""
    file = work / f"{arm}-{draw}.json"
    if not file.is_file():
        config = arm_config(arm, student_config(study, draw), work)
        workspace = Workspace.open(config.manifest, work / "cache")
        run = train(config, work / "runs", workspace=workspace)
        table = evaluate(load_model(run.folder / "model"), workspace.manifest, workspace=workspace)
        whole = table[table["source"] == ""].set_index("set")["auc"]
        write_atomically(file, json.dumps({name: float(whole[name]) for name in SETS}))
    found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    print(f"draw {draw}, {arm}: {found}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--work", type=Path, default=Path("repaired"))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    tasks = [(draw, arm) for draw in options.draws for arm in options.arms]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        count = len(tasks)
        found = list(
            pool.map(
                trained,
                [options.study.resolve()] * count,
                [work] * count,
                *zip(*tasks, strict=True),
            )
        )
    frame = pd.DataFrame(found).assign(
        draw=[draw for draw, _ in tasks], arm=[arm for _, arm in tasks]
    )
    frame.to_csv(work / "auc.csv", index=False, float_format="%.6g")
    print(frame.groupby("arm")[list(SETS)].mean().round(3).to_string())


if __name__ == "__main__":
    main()
