"""Faults put into a running study: whatever happens, it ends with the undisturbed tables.

    python benchmarks/fault.py [--points 20] [--seed 0] [--jobs 1]

A small study of forged photographs has every kind of step. It is run undisturbed, and then, each
time from nothing: killed with SIGKILL at `points` moments, the study and a worker in turn, while a
training, map making or a test scoring was running, or while it wrote its report; on
a disk that becomes full (a tmpfs, where this user may mount one); with a finished run's file
damaged; on a Ray cluster one of whose nodes dies in a training. Each time the same command must go
on, do no finished step again (but the damaged one), and leave the undisturbed tables, byte for
byte. At last a Ray node dies while a Teacher marks by RISE: the map store must be that of one
process, and a shard is all that is done again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forgeries import PRESETS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.execution.ray_cluster import ray_nodes

TABLES = (
    "table.csv",
    "results.csv",
    "rates.csv",
    "comparisons.csv",
    "budget.csv",
    "selection.json",
)
# The kind of the running step, by the kind of fault.
MOMENTS = {"training": "train", "maps": "maps", "scoring": "evaluate", "report": ""}
STUDY: dict[str, Any] = {
    "positive": "forged",
    "primary": "test-seen",
    "annotated": 24,
    "budget": [12],
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "seeds": [0],
    "alphas": [0.1],
    "teacher_alphas": [0.1],
    "data_driven": False,
    "controls": ["shuffled"],
    "training": {"input_size": 32, "epochs": 3, "batch_size": 8, "schedule": "constant"},
}


Fault = Callable[[Path, Path, Path, int], str]
"""Study file, study folder, the undisturbed one, jobs; returns what happened."""


class FaultError(Exception):
    """Something did not go on as it must."""


def preceptor(*arguments: object) -> list[str]:
    return [
        sys.executable,
        "-c",
        "from preceptor.cli.main import main; main()",
        *map(str, arguments),
    ]


def command(file: Path, out: Path, jobs: int, *more: str) -> list[str]:
    return preceptor("study", file, "--out", out, "--jobs", jobs, *more)


def started(file: Path, out: Path, jobs: int, *more: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command(file, out, jobs, *more), stdout=pipe, stderr=pipe, text=True)


def running(out: Path) -> list[str]:
    """Kinds of the running steps."""
    with contextlib.suppress(OSError, ValueError):
        return [one["kind"] for one in json.loads((out / "status.json").read_text())["running"]]
    return []


def failed(out: Path) -> bool:
    """Whether a step is known to have failed."""
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((out / "status.json").read_text())["failed"])
    return False


def finished(out: Path) -> dict[Path, int]:
    """When each step was finished, by its run.json."""
    return {file: file.stat().st_mtime_ns for file in out.glob("store/*/*/run.json")}


def workers(pid: int) -> list[int]:
    """The worker processes of a study, and the server that forks them."""
    found = []
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                found += [child, *workers(child)]
    return found


def wait_for(moment: str, process: subprocess.Popen[str], out: Path, after: int) -> None:
    """Until a step of a kind is done, or the report is written, and `after` steps have finished."""
    while process.poll() is None:
        if moment == "report":
            done = (out / "figures").exists() or (out / "table.csv").exists()
            if done:
                return
        elif len(finished(out)) >= after and any(kind == MOMENTS[moment] for kind in running(out)):
            return
        time.sleep(0.002)


def same_as(out: Path, undisturbed: Path) -> None:
    for name in TABLES:
        if (out / name).read_bytes() != (undisturbed / name).read_bytes():
            raise FaultError(f"{name} differs from the undisturbed one")


def goes_on(file: Path, out: Path, jobs: int, but: frozenset[str] = frozenset()) -> int:
    """Run the same command to its end; returns how many steps were left."""
    before = finished(out)
    done = subprocess.run(command(file, out, jobs), capture_output=True, text=True, check=False)
    if done.returncode:
        raise FaultError(f"the same command ended with {done.returncode}: {done.stderr[-300:]}")
    after = finished(out)
    again = [path.parent.name for path, when in before.items() if after.get(path) != when]
    if set(again) - but:
        raise FaultError(f"finished steps were done again: {again}")
    return len(after) - len(before) + len(again)


def killed(
    file: Path,
    out: Path,
    undisturbed: Path,
    jobs: int,
    moment: str,
    whom: str,
    after: int,
    delay: float,
) -> str:
    """SIGKILL to the study or to its workers while a step of a kind is done."""
    with started(file, out, jobs) as process:
        wait_for(moment, process, out, after)
        time.sleep(delay)
        if process.poll() is not None:
            process.communicate()
            hit = "it had ended"
        elif whom == "study":
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hit = f"{len(finished(out))} steps finished"
        else:
            for worker in workers(process.pid):
                os.kill(worker, signal.SIGKILL)
            _, errors = process.communicate()
            if process.returncode:
                raise FaultError(f"it did not replace its workers: {errors[-300:]}")
            hit = "it replaced them"
    left = goes_on(file, out, jobs)
    same_as(out, undisturbed)
    return f"{hit}, {left} left for the same command"


def full_disk(file: Path, out: Path, undisturbed: Path, jobs: int) -> str:
    """The disk of the study folder becomes full while it runs, and then is not."""
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", str(out)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return "SKIPPED: this user may not mount a tmpfs"
    resize = ["mount", "-o"]
    try:
        with started(file, out, jobs) as process:
            wait_for("training", process, out, 2)
            size = f"remount,size={shutil.disk_usage(out).used + 2**20}"
            subprocess.run([*resize, size, str(out)], check=True)
            text, errors = process.communicate()
        if process.returncode != 1 or "Traceback" in errors:
            raise FaultError(f"a full disk ended it with {process.returncode}: {errors[-300:]}")
        if "No space left" not in text + errors:
            raise FaultError(f"a full disk is not told: {errors[-300:]}")
        done = len(finished(out))
        subprocess.run([*resize, "remount,size=4g", str(out)], check=True)
        left = goes_on(file, out, jobs)
        same_as(out, undisturbed)
        return f"told, exit code 1, {done} steps finished; {left} left for the same command"
    finally:
        subprocess.run(["umount", str(out)], check=True)


def damaged(file: Path, out: Path, undisturbed: Path, jobs: int) -> str:
    """A file of a finished run is cut."""
    shutil.copytree(undisturbed, out)
    victim = sorted(out.glob("store/runs/*/model/model.safetensors"))[0]
    victim.write_bytes(victim.read_bytes()[:-100])
    left = goes_on(file, out, jobs, frozenset({victim.parents[1].name}))
    if left != 1:
        raise FaultError(f"{left} steps were done again, and one was damaged")
    same_as(out, undisturbed)
    return "the damaged run alone was done again"


def kills_a_node(arguments: list[Any], title: str, done: Callable[[], Any]) -> Any:
    """Run a command on two Ray nodes and kill one while it does a step whose title begins so.

    Args:
        arguments: Of the command.
        title: Of the step.
        done: What has finished; the node is killed once these are two.

    Returns:
        What had finished just before.
    """
    with ray_nodes(2) as cluster:
        where = ["--engine", "ray", "--address", cluster.address]
        with subprocess.Popen(
            preceptor(*arguments, *where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            before, hit = done(), False
            while process.poll() is None and not hit:
                before = done()
                for node in list(cluster.nodes):
                    if len(before) >= 2 and cluster.busy_with(node, title):
                        cluster.kill(node)
                        hit = True
                        break
                time.sleep(0.002)
            _, errors = process.communicate()
    if process.returncode:
        raise FaultError(f"it ended with {process.returncode}: {errors[-300:]}")
    if not hit:
        raise FaultError("it ended before a node could be killed")
    return before


def node_lost(file: Path, out: Path, undisturbed: Path, jobs: int) -> str:
    """One of two Ray nodes dies while it trains."""
    before = kills_a_node(["study", file, "--out", out], "train", lambda: finished(out))
    after = finished(out)
    again = [path.parent.name for path, when in before.items() if after.get(path) != when]
    if again:
        raise FaultError(f"finished steps were done again: {again}")
    same_as(out, undisturbed)
    left = goes_on(file, out, jobs)
    return f"{len(before)} steps finished, the other node did the rest, {left} left"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_draws(folder / "forged", PRESETS["tiny"], range(1))
        file = folder / "study.yaml"
        file.write_text(yaml.safe_dump(STUDY | {"manifest": "forged/0/manifest.csv"}))
        undisturbed = folder / "undisturbed"
        began = time.monotonic()
        goes_on(file, undisturbed, arguments.jobs)
        steps = len(finished(undisturbed))
        print(f"undisturbed: {steps} steps, {time.monotonic() - began:.0f} s", flush=True)
        faults: list[tuple[str, Fault]] = []
        for place in range(arguments.points):
            moment = list(MOMENTS)[place % len(MOMENTS)]
            whom = "study" if moment == "report" or (place // len(MOMENTS)) % 2 == 0 else "worker"
            after = int(generator.integers(0, 6)) if moment in ("training", "scoring") else 0
            delay = float(generator.uniform(0, 0.3))
            kill = partial(killed, moment=moment, whom=whom, after=after, delay=delay)
            faults.append((f"{place + 1:2d} SIGKILL to the {whom} in {moment}", kill))
        faults += [
            ("full disk", full_disk),
            ("damaged run", damaged),
            ("Ray node killed in training", node_lost),
        ]

        def survived(place: int) -> bool:
            name, fault = faults[place]
            out = folder / f"fault-{place}"
            try:
                print(f"{name}: {fault(file, out, undisturbed, arguments.jobs)}", flush=True)
            except FaultError as error:
                print(f"{name}: FAILED: {error}", flush=True)
                return False
            finally:
                shutil.rmtree(out, ignore_errors=True)
            return True

        # Ray starts its nodes from the main thread alone, which then helps with the others.
        on_ray = [place for place, (name, _) in enumerate(faults) if name.startswith("Ray")]
        waiting = deque(place for place in range(len(faults)) if place not in on_ray)

        def others() -> list[bool]:
            found = []
            with contextlib.suppress(IndexError):
                while True:
                    found.append(survived(waiting.popleft()))
            return found

        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(others)
            mine = [survived(place) for place in on_ray] + others()
            failures = (mine + beside.result()).count(False)
    print(
        f"{failures} of {len(faults)} faults were not survived"
        if failures
        else f"all {len(faults)} faults were survived, with the same tables"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
