"""A real Ray cluster of two nodes on this machine: the tables of local workers, whatever dies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor.config.files import load_config
from preceptor.errors import InputError
from preceptor.execution.perform import Event, WorkerContext
from preceptor.execution.ray import RayExecutor, connect
from preceptor.execution.status import read_status
from preceptor.study.config import StudyConfig
from preceptor.study.workspaces import Workspaces
from tests.commands import HANGS
from tests.datasets import squares
from tests.execution.ray_cluster import Nodes
from tests.forked import Forked, command
from tests.hangs import blocked_training, until_it_hangs
from tests.studies import SETTINGS, run_serially, same_tables, walk

# Not imported here, as each worker of a test run would.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder at which processes of the cluster meet, see `tests.networks.gated`."""
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def cluster(gate: Path) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATE", str(gate))
        nodes = Nodes(2)
    try:
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(scope="module")
def connected(cluster: Nodes) -> Iterator[Nodes]:
    """The cluster, with a connection of this process that all executors use."""
    import ray

    connect(ray, cluster.address)
    try:
        yield cluster
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray study")
    squares(folder / "data", splits={"train": 40, "val": 8, "test": 8, "test-unseen": 8})
    target = folder / "study.yaml"
    values = SETTINGS | {
        "manifest": "data/manifest.csv",
        "backbones": {"gated": "tests.networks:gated"},
        "teachers": ["gated"],
        "students": ["gated"],
        "backbone_args": {},
        "saliency": ["cam", "rise"],
        "controls": [],
        "ceiling": False,
        "rise_masks": 128,
    }
    target.write_text(yaml.safe_dump(values))
    return target


@pytest.fixture(scope="module")
def local(file: Path) -> Path:
    out = file.parent / "local"
    assert not run_serially(load_config(file, StudyConfig), out).failed
    return out


def on(cluster: Nodes, file: Path, out: Path) -> Forked:
    arguments = ["study", file, "--out", out, "--engine", "ray", "--address", cluster.address]
    return Forked(command, arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], Any], process: Forked | None = None) -> Any:
    """The value of a condition, as soon as it is true."""
    until = time.monotonic() + HANGS
    while not (value := condition()):
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    return value


def test_what_a_cluster_cannot_do_is_refused(connected: Nodes, tmp_path: Path) -> None:
    empty = Workspaces({}, {})
    with pytest.raises(InputError, match="no machine of the cluster has 64"):
        RayExecutor(WorkerContext(empty, tmp_path, threads=64))


def test_a_step_that_hangs_is_ended_once_and_not_tried_again(
    connected: Nodes, tmp_path: Path
) -> None:
    """A worker that is silent before the first image counts as lost: then with more patience."""
    with blocked_training(tmp_path) as (plan, step):

        def attempt(patience: float) -> list[Event]:
            work = WorkerContext(
                plan.protocol.workspaces, plan.protocol.store, hang_timeout=patience
            )
            executor = RayExecutor(work)
            heard: list[Event] = []
            try:
                executor.start(step)
                while not heard or not heard[-1].ends:
                    heard += executor.events(1.0)
            finally:
                executor.close()
            return heard

        # Each attempt starts a worker, which imports torch.
        log = tmp_path / "store" / "failed" / f"{step.id}.log"
        heard = until_it_hangs(attempt, log, patience=12.0)
    assert heard[-1].kind == "failed"
    assert heard[-1].text.startswith("hung: silent for ")


def test_a_study_that_loses_a_node_and_is_killed_leaves_the_tables_of_local_workers(
    file: Path, local: Path, cluster: Nodes, gate: Path, tmp_path: Path
) -> None:
    """Both nodes work at a time, the other node goes on, and no finished step is lost."""
    out = tmp_path / "study"
    (gate / "meet").touch()
    (gate / "hold").touch()

    def pids(kind: str) -> list[int]:
        return [int(path.name.split("-")[1]) for path in gate.glob(f"{kind}-*")]

    def running() -> set[str]:
        return {step.title for step in read_status(out)[0].running if step.where}

    with on(cluster, file, out) as process:
        wait_for(lambda: len(pids("held")) == 2 == len(running()), process)
        met = pids("arrived")
        assert all(any(cluster.has(node, pid) for pid in met) for node in cluster.nodes)
        both, nodes = running(), list(cluster.nodes)
        cluster.kill(nodes[0])
        (gate / "go").touch()
        wait_for(lambda: not both & running(), process)
        process.kill()
    wait_for(lambda: not any(cluster.has(node, pid) for node in nodes for pid in met))
    done = {path: path.stat().st_mtime_ns for path in out.glob("store/runs/*/run.json")}
    assert len(done) >= 2
    with on(cluster, file, out) as process:
        text, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "report" in text
    same_tables(out, local)
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert not list((out / "store" / "shards").iterdir())


def test_a_study_on_gpus_waits_for_one_and_does_not_go_on_without(
    file: Path, connected: Nodes, tmp_path: Path
) -> None:
    plan = walk(load_config(file, StudyConfig), tmp_path / "store", compute=False)
    work = WorkerContext(plan.protocol.workspaces, plan.protocol.store, device="auto")
    connected.add(gpus=1)
    executor = RayExecutor(work)
    try:
        assert executor.free
        connected.kill(connected.nodes[-1])
        wait_for(lambda: not executor.free)
        connected.add(gpus=1)
        wait_for(lambda: executor.free)
    finally:
        executor.close()
