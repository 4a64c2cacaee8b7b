"""Compare a guidance method of one's own with the archived ones, on moving decoys.

    python benchmarks/compare_guidance.py module:Method [--with gradient:xil ...] [--draws 3]

Method is a subclass of `preceptor.losses.guidance.Guidance` in a module on PYTHONPATH; methods of
this library are NAME or NAME:PRESET. Every method has the same trials: three strengths, a grid
that is extended while its end is best, and three lengths, by the validation sets (with clean
labels) of the first three draws. It is trained with people's maps on all 3,000 images, and with
the same maps shuffled: a method is worth what it is above its twin. Draws 30 and further of
`preceptor data decoys --source fashion` are made in --to (about 5 seconds a draw); what is trained
there is not trained again. Differences are paired by draw. benchmarks/evidence/other/compared.csv
has the rows of methods that were compared before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "benchmarks" / "evidence" / "other" / "compared.csv"
FIRST, LENGTHS, ALPHAS, MOST = 30, (300, 900, 2000), (0.9, 0.5, 0.1), 3
SEARCHED = 3  # draws whose validation sets select the setting
TRAINING = {"input_size": 32, "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01, "epochs": 1}
TRAINING |= {"schedule": "one_cycle", "batch_size": 24, "checkpoint": "last", "length": "steps"}
KEYS = ("method", "maps", "alpha", "steps", "draw")


def trained(store: Path, draw: int, method: str, maps: str, alpha: float, steps: int) -> Any:
    """Train one network, unless it is there; its AUCs and seconds."""
    sys.path.insert(0, str(ROOT / "examples" / "guidance"))
    from preceptor.config.run import MapSource, RunConfig
    from preceptor.config.settings import NetworkFactory
    from preceptor.config.training import Training
    from preceptor.data.workspace import Workspace
    from preceptor.inference.predict import score_sets
    from preceptor.losses.guidance import METHODS
    from preceptor.metrics.scores import set_auc
    from preceptor.models.build import load_model
    from preceptor.training.run import train

    manifest = store / "decoys" / str(draw) / "manifest.csv"
    name, _, preset = method.partition(":")
    name, preset = (name, preset) if name in METHODS else (method, "")
    way = {} if method in ("l2", "no maps") else {"method": name, "preset": preset or None}
    shuffled = {"shuffle_seed": draw} if maps == "shuffled" else {}
    workspace = Workspace.open(manifest)
    config = RunConfig(
        manifest=manifest,
        backbone="small",
        network=NetworkFactory(factory="small_cnn:small_cnn"),
        maps=MapSource(kind="none") if maps == "none" else MapSource(kind="human", **shuffled),
        alpha=alpha,
        seed=draw,
        training=Training.model_validate(TRAINING | way | {"steps": steps}),
    )
    run = train(config, store / "runs", workspace=workspace)
    scores = score_sets(load_model(run.folder / "model"), workspace)
    classes = workspace.manifest.classes
    aucs = {part: set_auc(own, classes, None) for part, own in scores.groupby("split")}
    values = [method, maps, alpha, steps, draw]
    return dict(zip(KEYS, values, strict=True)) | aucs | {"seconds": run.record.seconds}


def search(pool: ProcessPoolExecutor, store: Path, method: str, maps: str, draws: list[int]) -> Any:
    """Rows of the setting with the highest mean AUC on the worse validation set."""
    from preceptor.study.config import Setting, beyond

    def rows(settings: list[Setting], draws: list[int]) -> list[dict[str, Any]]:
        jobs = [
            pool.submit(trained, store, draw, method, maps, one.alpha, one.steps)
            for one in sorted(settings, key=lambda one: -one.steps)
            for draw in draws
        ]
        return [job.result() for job in jobs]

    found: list[dict[str, Any]] = []
    means = pd.Series(dtype=float)
    strengths = ALPHAS if maps != "none" else (1.0,)
    grid = [Setting(alpha, "", steps) for alpha in strengths for steps in LENGTHS]
    for _ in range(MOST):
        found += rows(grid, draws[:SEARCHED])
        table = pd.DataFrame(found)
        worst = table[["val", "val-noshort"]].min(axis=1)
        means = worst.groupby([table["alpha"], table["steps"]]).mean()
        grid = beyond([Setting(alpha, "", steps) for alpha, steps in means.index], [*means])
        if not grid:
            break
    best: Any = means.idxmax()
    alpha, steps = best
    trials = {"trials": len(means), "trial_seconds": table["seconds"].sum() / SEARCHED}
    print(f"{method}, {maps}: α {alpha}, {steps} steps of {len(means)} trials", flush=True)
    return pd.DataFrame(rows([Setting(alpha, "", steps)], draws)).assign(**trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("method", help="module:Method, or the name of a method of this library")
    parser.add_argument("--with", dest="others", nargs="*", default=["l2"], metavar="NAME")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--source", default="fashion", help="of `preceptor data decoys`")
    parser.add_argument("--images", type=int, default=3000, help="of the training")
    parser.add_argument("--to", type=Path, default=Path("compared"))
    given = parser.parse_args()
    store, draws = given.to.absolute(), [FIRST + draw for draw in range(given.draws)]
    make = ["data", "decoys", "--to", store / "decoys", "--first", FIRST, "--draws", given.draws]
    make += ["--source", given.source, "--images", given.images]
    command = [sys.executable, "-m", "preceptor", *map(str, make)]
    subprocess.run(command, check=True)
    from preceptor.metrics.paired_tests import paired_difference

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        wanted = [("no maps", "none")]
        wanted += [
            (one, maps) for one in (given.method, *given.others) for maps in ("right", "shuffled")
        ]
        table = pd.concat([search(pool, store, *one, draws) for one in wanted])
    if ARCHIVE.is_file() and given.images == 3000:
        before = pd.read_csv(ARCHIVE)
        table = pd.concat([table, before[before["draw"].isin(draws)]])
        table = table.drop_duplicates(["method", "maps", "draw"])
    table.to_csv(store / "compared.csv", index=False)
    by = {key: own.set_index("draw")["test"] for key, own in table.groupby(["method", "maps"])}
    plain = by["no maps", "none"]
    print(f"\n{'method':24} {'AUC':>6} {'s':>6}   − no maps                  − its shuffled maps")
    for (name, maps), aucs in by.items():
        if maps == "right":
            pairs = (aucs, plain), (aucs, by[name, "shuffled"])
            one, two = (paired_difference(*a.align(b, join="inner")) for a, b in pairs)
            said = [f"{d.mean:+.3f} ({d.low:+.3f} to {d.high:+.3f})" for d in (one, two)]
            seconds = table[(table["method"] == name) & (table["maps"] == maps)]["seconds"].mean()
            print(f"{name:24} {aucs.mean():6.3f} {seconds:6.1f}   {said[0]:26} {said[1]}")
    print(f"{'no maps':24} {plain.mean():6.3f}")


if __name__ == "__main__":
    main()
