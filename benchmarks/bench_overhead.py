"""What a study costs beside its runs: 40 short runs as a study, and one after the other.

    python benchmarks/bench_overhead.py [--steps 60] [--repeats 3]

Both are whole commands on one core, from their start to their end, with the same images in a cache
of their own; in turn, and the medians are compared. The plain side trains the study's 40 runs and
scores its test sets in a loop, in one process, and writes neither tables nor a report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forgeries import PRESETS
from preceptor.config.files import load_config
from preceptor.execution.perform import perform
from preceptor.study.config import StudyConfig
from preceptor.study.plan import StudyPlan
from preceptor.study_folder import reopen

# Baseline 1 at two α, Baseline 2, Student, shuffled, centre, ceiling and mixed, five seeds each.
STUDY: dict[str, Any] = {
    "positive": "forged",
    "primary": "test-seen",
    "annotated": 24,
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "seeds": 5,
    "alphas": [0.1],
    "teacher_alphas": [0.1],
    "data_driven": False,
    "controls": ["shuffled", "centre", "mixed"],
    "training": {
        "input_size": 64,
        "batch_size": 20,
        "epochs": 2,
        "schedule": "constant",
        "precision": "32-true",
    },
}


def plain(folder: Path, out: Path) -> None:
    """The steps of a finished study in a loop, into another store."""
    study = reopen(folder)
    config = load_config(folder / "study.yaml", StudyConfig)
    steps = [step for plan in study for step in plan.steps.values() if step.kind != "select"]
    from preceptor.study.workspaces import Workspaces

    workspaces = Workspaces.of_study(config, out)
    for step in steps:
        perform(step, out, workspaces)


def seconds(*command: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.monotonic() - started


def runs(study: StudyPlan) -> int:
    return sum(step.kind == "train" for plan in study for step in plan.steps.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(*arguments.plain)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_draws(folder / "forged", PRESETS["tiny"], range(1))
        file = folder / "study.yaml"
        values = STUDY | {"manifest": "forged/0/manifest.csv"}
        values["training"] = values["training"] | {"steps": arguments.steps}
        file.write_text(yaml.safe_dump(values))
        cli = "from preceptor.cli.main import main; main()"
        ratios, wall, loop = [], [], []
        for place in range(arguments.repeats):
            out = folder / f"study-{place}"
            wall.append(seconds("-c", cli, "study", str(file), "--out", str(out), "--jobs", "1"))
            loop.append(seconds(__file__, "--plain", str(out), str(folder / f"plain-{place}")))
            ratios.append(wall[-1] / loop[-1])
            print(f"study {wall[-1]:.1f} s, loop {loop[-1]:.1f} s: {ratios[-1]:.3f}", flush=True)
        found = reopen(folder / "study-0")
        records = [json.loads(one.read_text()) for one in out.glob("store/runs/*/run.json")]
        each = median(record["seconds"] for record in records)
        print(f"{runs(found)} runs of {each:.1f} s in epochs (median)")
        print(f"study ÷ loop: {median(ratios):.3f} (median of {arguments.repeats})")


if __name__ == "__main__":
    main()
