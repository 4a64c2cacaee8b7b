"""24 short runs on local workers and on Ray nodes of this machine: the same tables, how long.

    python benchmarks/ray_nodes.py [--steps 60] [--repeats 1]

Trainings of forged photographs, from nothing each time: on one and two local workers, and on one,
two and three Ray nodes of one core. Then on three nodes, one of which is killed (SIGKILL to its
raylet, agents and workers) when half of the steps are done. Every time the tables must be those of
one local worker, byte for byte. The clusters are there before the study begins; connecting to them,
and starting workers in them, counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import yaml
from bench_overhead import STUDY
from measure import machine
from ray_cluster import Nodes, ray_nodes

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forged_settings import PRESETS

TABLES = ("table.csv", "results.csv", "rates.csv", "comparisons.csv", "selection.json")
# Baseline 1 at two α (one of them the Teacher), Baseline 2, Student, ceiling, three controls.
SHORT = STUDY | {"seeds": 3, "ceiling": True}


def study(
    file: Path, out: Path, *more: str, meanwhile: Callable[[], object] = lambda: None
) -> float:
    """Seconds of a study from nothing."""
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["study", str(file), "--out", str(out), *more]
    command = [sys.executable, "-c", "from preceptor.cli.main import main; main()", *arguments]
    started = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while process.poll() is None:
            meanwhile()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        assert process.stdout is not None
        text = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(more)}: exit code {process.returncode}\n{text[-2000:]}")
    return time.monotonic() - started


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in TABLES)


def finished(out: Path) -> int:
    return len(list(out.glob("store/*/*/run.json")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_draws(folder / "forged", PRESETS["tiny"], range(1))
        file, one = folder / "study.yaml", folder / "one"
        values = SHORT | {"manifest": "forged/0/manifest.csv"}
        values["training"] = values["training"] | {"steps": arguments.steps}
        file.write_text(yaml.safe_dump(values))
        seconds: dict[str, list[float]] = {}

        def told(name: str, took: float, out: Path) -> None:
            seconds.setdefault(name, []).append(took)
            tables = "the reference" if out == one else "the same" if same(out, one) else "DIFFER"
            print(f"{name}: {took:.1f} s, tables {tables}", flush=True)

        for turn in range(arguments.repeats):
            for jobs in (1, 2):
                out = one if jobs == 1 and not turn else folder / "other"
                told(f"local, {jobs} at once", study(file, out, "--jobs", str(jobs)), out)
            for count in (1, 2, 3):
                with ray_nodes(count) as cluster:
                    more = ("--engine", "ray", "--address", cluster.address)
                    out = folder / "ray"
                    told(f"Ray, {count} nodes", study(file, out, *more), out)
        steps = finished(one)
        print(f"{len(list(one.glob('store/runs/*')))} trainings, {steps} steps")
        with ray_nodes(3) as cluster:
            out, killed = folder / "lost", list[int]()

            def kill(cluster: Nodes = cluster) -> None:
                done = finished(out)
                if killed or done < steps // 2:
                    return
                for node in list(cluster.nodes):
                    if cluster.busy_with(node, "train"):
                        cluster.kill(node)
                        killed.append(done)
                        return

            more = ("--engine", "ray", "--address", cluster.address)
            took = study(file, out, *more, meanwhile=kill)
            told(f"Ray, 3 nodes, one killed after {killed} steps", took, out)
        reference = median(seconds["local, 1 at once"])
        for name, found in seconds.items():
            print(f"{name}: {median(found):.1f} s, {median(found) / reference:.2f} of one worker")
        print(f"{os.cpu_count()} cores, {machine()}")


if __name__ == "__main__":
    main()
