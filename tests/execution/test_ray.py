"""A real Ray cluster of two nodes on this machine: the tables of local workers, whatever dies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from preceptor.config.files import load_config
from preceptor.config.maps import RiseSettings
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.execution.executor import Event, WorkerContext
from preceptor.execution.ray import RayExecutor
from preceptor.execution.status import read_status
from preceptor.inference.annotate import annotate
from preceptor.maps.store import read_store
from preceptor.models.build import load_model
from preceptor.study.config import StudyConfig
from preceptor.study.workspaces import Workspaces
from tests.commands import flags
from tests.datasets import squares
from tests.execution.ray_cluster import Nodes
from tests.forked import Forked, command
from tests.hangs import blocked_training, until_it_hangs
from tests.studies import SETTINGS, run_serially, same_tables, walk

pytest.importorskip("ray", reason="the extra ray is not installed")


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
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray study")
    squares(folder / "data", splits={"train": 40, "val": 12, "test": 12, "test-unseen": 12})
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


def preceptor(*arguments: Any) -> Forked:
    return Forked(command, arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def on(cluster: Nodes, file: Path, out: Path) -> Forked:
    return preceptor("study", file, "--out", out, "--engine", "ray", "--address", cluster.address)


def test_annotation_on_a_cluster_leaves_the_store_of_one_process(
    file: Path, local: Path, cluster: Nodes, tmp_path: Path
) -> None:
    model = next(iter(sorted(local.glob("store/runs/*/model"))))
    manifest = file.parent / "data" / "manifest.csv"
    with preceptor(
        "annotate",
        model,
        manifest,
        *flags(method="rise", split="all", max_masks=128, out=tmp_path / "ray"),
        *flags(engine="ray", address=cluster.address),
    ) as process:
        other = annotate(
            load_model(model).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            Manifest.read(manifest),
            "rise",
            out=tmp_path / "local",
            splits="all",
            rise=RiseSettings(max_masks=128),
        )
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    one = read_store(tmp_path / "ray")
    assert one.info == other.info
    for name in ("paths", "maps", "classes", "scores", "probabilities", "error"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert sorted(path.name for path in (tmp_path / "ray").iterdir()) == ["maps-00000.parquet"]


def test_a_cluster_of_which_a_node_dies_leaves_the_tables_of_local_workers(
    file: Path, local: Path, cluster: Nodes, gate: Path, tmp_path: Path
) -> None:
    """Both nodes work at a time, no finished step is lost, and the other node goes on."""
    out = tmp_path / "study"
    (gate / "meet").touch()

    def first(folder: Path, pattern: str) -> list[Path]:
        """Files, as soon as there are some."""
        while not (files := list(folder.glob(pattern))):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        return files

    with on(cluster, file, out) as process:
        done = first(out, "store/runs/*/run.json")
        met = [int(path.name.split("-")[1]) for path in gate.glob("arrived-*")]
        nodes = {
            cluster.nodes.index(one)
            for one in cluster.nodes
            for pid in met
            if cluster.has(one, pid)
        }
        (gate / "hold").touch()
        held = int(first(gate, "held-*")[0].name.split("-")[1])
        before = {path: path.stat().st_mtime_ns for path in done}
        while not any(step.where for step in read_status(out)[0].running):
            time.sleep(0.05)
        cluster.kill(next(one for one in cluster.nodes if cluster.has(one, held)))
        (gate / "go").touch()
        text, errors = process.communicate()
    assert nodes == {0, 1}
    assert process.returncode == 0, errors
    assert "report" in text
    same_tables(out, local)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert not list((out / "store").glob("*/.*lease*"))
    assert not list((out / "store" / "shards").iterdir())


def test_a_study_that_is_killed_on_a_cluster_goes_on_without_it(
    file: Path, local: Path, cluster: Nodes, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    with on(cluster, file, out) as process:
        while not list(out.glob("store/runs/*/run.json")):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert not run_serially(load_config(file, StudyConfig), out).failed
    same_tables(out, local)


def test_what_a_cluster_cannot_do_is_refused(cluster: Nodes, tmp_path: Path) -> None:
    empty = Workspaces({}, {})
    with pytest.raises(InputError, match="has no GPU"):
        RayExecutor(WorkerContext(empty, tmp_path, device="cuda"), address=cluster.address)
    with pytest.raises(InputError, match="no machine of the cluster has 64"):
        RayExecutor(WorkerContext(empty, tmp_path, threads=64), address=cluster.address)


def test_a_step_that_hangs_is_ended_once_and_not_tried_again(
    cluster: Nodes, tmp_path: Path
) -> None:
    with blocked_training(tmp_path) as (plan, step):

        def attempt(patience: float) -> list[Event]:
            work = WorkerContext(
                plan.protocol.workspaces, plan.protocol.store, hang_timeout=patience
            )
            executor = RayExecutor(work, address=cluster.address)
            heard: list[Event] = []
            try:
                executor.start(step)
                while not heard or not heard[-1].ends:
                    heard += executor.events(1.0)
            finally:
                executor.close()
            return heard

        heard = until_it_hangs(attempt, tmp_path / "store" / "failed" / f"{step.id}.log")
    assert heard[-1].kind == "failed"
    assert heard[-1].text.startswith("hung: silent for ")


def test_a_study_on_gpus_waits_for_one_and_does_not_go_on_without(
    file: Path, cluster: Nodes, tmp_path: Path
) -> None:
    plan = walk(load_config(file, StudyConfig), tmp_path / "store", compute=False)
    work = WorkerContext(plan.protocol.workspaces, plan.protocol.store, device="auto")
    for node in list(cluster.nodes):
        cluster.kill(node)
    for gpus in (0, 0, 1):
        cluster.add(gpus)
    executor = RayExecutor(work, address=cluster.address)

    def has_room(wanted: bool) -> bool:
        until = time.monotonic() + 60
        while bool(executor.free) != wanted and time.monotonic() < until:
            time.sleep(0.2)
        return bool(executor.free)

    try:
        assert executor.free
        cluster.kill(cluster.nodes[-1])
        assert not has_room(False)
        cluster.add(gpus=1)
        assert has_room(True)
    finally:
        executor.close()
