"""Does a change of the training batches change accuracy? Trains with two versions of the code.

  preceptor data forged --to forged --preset full --seeds 10
  python benchmarks/augmentation_change.py --draws forged --before REVISION --work change [--jobs 2]

For each draw, Baseline 2 (no maps) and the ceiling (all human maps, α 0.1) are trained as in
forged_small.yaml, once with the source of REVISION and once with this checkout's, and their AUCs
are paired. `--all-changes` trains with crops, color, blur and JPEG besides flips and quarter
turns. The same command goes on where it was stopped: a finished training is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from preceptor.config.run import RunConfig
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.evaluation.paired_tests import mean_std, paired_difference
from preceptor.inference.score import evaluate
from preceptor.models.model_folder import load_model
from preceptor.training.run import train

# Through the config, since earlier revisions have these classes in another module.
Training: Any = RunConfig.model_fields["training"].annotation
Augmentation: Any = Training.model_fields["augmentation"].annotation

HERE = Path(__file__).resolve().parent
ARMS = {"baseline2": ("none", 1.0), "ceiling": ("human", 0.1)}
SETS = ("test-seen", "test-unseen")
ALL_CHANGES = {"crop_area": 0.5, "color": 0.3, "blur": 0.5, "jpeg": 0.5}


# Settings that had another name in revisions to compare with.
EARLIER = {"optimizer": "optimiser", "color": "colour"}


def in_words_of(model: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Settings under the names that the running version knows."""
    known = model.model_fields
    return {key if key in known else EARLIER.get(key, key): value for key, value in values.items()}


@dataclass(frozen=True)
class Job:
    """One training."""

    version: str
    source: Path
    arm: str
    seed: int
    manifest: Path
    store: Path
    all_changes: bool

    @property
    def result(self) -> Path:
        kind = "all" if self.all_changes else "turns"
        return self.store / f"{self.arm}-{self.seed}-{kind}.json"


def config_of(arm: str, seed: int, manifest: Path, all_changes: bool) -> RunConfig:
    study = yaml.safe_load((HERE / "forged_small.yaml").read_text(encoding="utf-8"))
    (backbone,) = study["students"]
    maps, alpha = ARMS[arm]
    training = in_words_of(Training, study["training"])
    changes = training["augmentation"] | (ALL_CHANGES if all_changes else {})
    training["augmentation"] = in_words_of(Augmentation, changes)
    return RunConfig.model_validate(
        {
            "manifest": manifest,
            "backbone": backbone,
            "backbone_args": study["backbone_args"][backbone],
            "positive": study["positive"],
            "maps": {"kind": maps},
            "alpha": alpha,
            "seed": seed,
            "training": training,
        }
    )


def train_one(arm: str, seed: int, manifest: Path, result: Path, all_changes: bool) -> None:
    """In a process of its own, whose PYTHONPATH says which version runs."""
    config = config_of(arm, seed, manifest, all_changes)
    workspace = Workspace(Manifest.read(manifest), result.parent / "cache")
    trained = train(config, result.parent / "runs", workspace=workspace)
    table = evaluate(load_model(trained.folder / "model"), workspace.manifest, workspace=workspace)
    whole = table[table["source"] == ""].set_index("set")["auc"]
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps({name: float(whole[name]) for name in SETS}), encoding="utf-8")
    partial.replace(result)


def run(job: Job) -> None:
    if job.result.exists():
        return
    job.store.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(Path(__file__)),
        "--one",
        job.arm,
        str(job.seed),
        str(job.manifest),
        str(job.result),
    ]
    if job.all_changes:
        command.append("--all-changes")
    environment = os.environ | {"PYTHONPATH": str(job.source), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True)
    print(
        f"{job.version} {job.arm} {job.seed}: {job.result.read_text(encoding='utf-8')}", flush=True
    )


def source_of(revision: str, work: Path) -> Path:
    """The package as it was at a revision, unpacked once."""
    name = subprocess.run(
        ["git", "rev-parse", revision], cwd=HERE, check=True, capture_output=True, text=True
    ).stdout.strip()
    folder = work / name
    if not (folder / "src").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(
            ["git", "archive", name, "src"], cwd=HERE.parent, check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "x", "-C", str(folder)], input=archive, check=True)
    return folder / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=Path, default=Path("forged"))
    parser.add_argument("--before", default="HEAD~1", help="revision of the other version")
    parser.add_argument("--work", type=Path, default=Path("augmentation-change"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--all-changes", action="store_true")
    parser.add_argument("--one", nargs=4, metavar=("ARM", "SEED", "MANIFEST", "RESULT"))
    options = parser.parse_args()
    if options.one:
        arm, seed, manifest, result = options.one
        train_one(arm, int(seed), Path(manifest), Path(result), options.all_changes)
        return
    work = options.work.resolve()
    sources = {"before": source_of(options.before, work), "after": HERE.parent / "src"}
    jobs = [
        Job(
            version,
            source,
            arm,
            seed,
            (options.draws / str(seed) / "manifest.csv").resolve(),
            work / version,
            options.all_changes,
        )
        for seed in range(options.seeds)
        for arm in ARMS
        for version, source in sources.items()
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, jobs))
    found = {
        (job.version, job.arm, job.seed): json.loads(job.result.read_text(encoding="utf-8"))
        for job in jobs
    }
    print("| arm | set | before | after | after − before | p |")
    print("| --- | --- | --- | --- | --- | --- |")
    for arm in ARMS:
        for name in SETS:
            before, after = (
                [found[version, arm, seed][name] for seed in range(options.seeds)]
                for version in ("before", "after")
            )
            paired = paired_difference(after, before)
            sides = [
                f"{mean_std(side).mean:.3f} ± {mean_std(side).std:.3f}" for side in (before, after)
            ]
            print(
                f"| {arm} | {name} | {sides[0]} | {sides[1]} | {paired.mean:+.3f} "
                f"({paired.low:+.3f} to {paired.high:+.3f}) | {paired.p:.2f} |"
            )


if __name__ == "__main__":
    main()
