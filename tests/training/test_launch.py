"""One run on several devices: real processes over gloo, which agree with one and outlive none."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from preceptor.config.run import RunConfig, Training
from preceptor.config.yaml_file import dump_config
from preceptor.data.loader import shares, split_batches
from preceptor.errors import InputError
from preceptor.runtime.result_folder import file_digest, read_record
from preceptor.training.launch import launch
from preceptor.training.run import train
from tests.commands import Outcome, assert_refused
from tests.datasets import squares

LEFT = ("model/model.safetensors", "metrics.csv", "scores.parquet")
CHANGES = {"flip": True, "quarter_turns": True, "crop_area": 0.6, "colour": 0.3, "jpeg": 0.5}
# Batches of 7, 7, 7 and 3 of 24 images: 4 + 3 and 2 + 1 over two devices.
SMALL = {
    "input_size": 64, "batch_size": 7, "epochs": 1, "lr": 0.01, "schedule": "constant",
    "clip": 1.0, "augmentation": CHANGES, "device": "cpu",
}  # fmt: skip
LONGER = {"devices": 2, "epochs": 10}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRECEPTOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def run_of(manifest: Path, training: dict[str, Any], **values: Any) -> RunConfig:
    base = {"manifest": manifest, "backbone": "test_vit", "positive": "marked", "alpha": 0.3}
    return RunConfig.model_validate(base | values | {"training": SMALL | training})


def start(config: RunConfig, store: Path, **environment: str) -> subprocess.Popen[str]:
    """`python -m preceptor.training`; the config lies beside the store."""
    file = store.with_suffix(".yaml")
    file.write_text(dump_config(config))
    return subprocess.Popen(
        [sys.executable, "-m", "preceptor.training", str(file), str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def ended(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


def finished(config: RunConfig, store: Path) -> Path:
    """The folder of a run that several devices finished without a word on standard error."""
    outcome = ended(start(config, store))
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    return Path(outcome.out.splitlines()[-1].removeprefix("run "))


def until(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"it never said {beginning!r}: {ended(process)}")


def ranks_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """LOCAL_RANK → process id of a command's children."""
    found = {}
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    for child in " ".join(file.read_text() for file in tasks).split():
        own = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        variables = dict(pair.split("=", 1) for pair in own if "=" in pair)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            found[int(variables["LOCAL_RANK"])] = int(child)
    return found


def apart(one: Path, other: Path) -> float:
    """The largest difference of weights relative to the largest weight of its tensor."""
    a, b = (load_file(folder / "model/model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max() / a[key].abs().max()) for key in a)


def assert_same(one: Path, other: Path) -> None:
    for name in LEFT:
        assert file_digest(one / name) == file_digest(other / name), name


@pytest.fixture(scope="module")
def pair(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two devices that nothing disturbed."""
    return finished(run_of(manifest, LONGER), tmp_path_factory.mktemp("pair") / "runs")


def test_two_devices_see_as_many_images_as_one(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 25, "val": 4, "test": 2})
    steps = {"batch_size": 20, "length": "steps", "steps": 40, "epochs": 2}
    one = train(run_of(manifest, steps), tmp_path / "one").folder
    two = finished(run_of(manifest, steps | {"devices": 2}), tmp_path / "two")
    assert [read_record(folder)["images_seen"] for folder in (one, two)] == [800, 800]
    assert apart(one, two) < 2e-4


@pytest.mark.parametrize(
    ("values", "training"),
    [
        ({}, {}),
        ({"backbone": "test_convnext", "alpha_start": 0.0}, {"balanced": True, "clip": None}),
        ({"backbone": "test_efficientnet_gn", "alpha": 0.0}, {"distance": "mse"}),
    ],
    ids=["test_vit", "test_convnext", "test_efficientnet_gn"],
)
def test_two_devices_do_what_one_does(
    manifest: Path, tmp_path: Path, values: dict[str, Any], training: dict[str, Any]
) -> None:
    """Measured, over four steps: weights apart by at most 4e-6 of the largest of their tensor."""
    one = train(run_of(manifest, training, **values), tmp_path / "one").folder
    two = finished(run_of(manifest, training | {"devices": 2}, **values), tmp_path / "two")
    assert apart(one, two) < 2e-5
    metrics, same = (pd.read_csv(folder / "metrics.csv") for folder in (one, two))
    assert list(metrics.columns) == list(same.columns)
    np.testing.assert_allclose(metrics, same, rtol=1e-4, atol=1e-6)
    scores, likewise = (pd.read_parquet(folder / "scores.parquet") for folder in (one, two))
    np.testing.assert_allclose(scores["score_marked"], likewise["score_marked"], atol=1e-5)
    assert read_record(two)["images_seen"] == read_record(one)["images_seen"]
    assert one.name != two.name


def test_whatever_dies_the_same_command_ends_with_the_same_bits(
    manifest: Path, tmp_path: Path
) -> None:
    """Three devices: their sums depend on the order, which must not depend on where a run began."""
    config = run_of(manifest, LONGER | {"devices": 3})
    undisturbed = finished(config, tmp_path / "undisturbed")

    process = start(config, tmp_path / "killed")
    until(process, "epoch 1/")
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    outcome = ended(process)
    assert outcome.code == 1
    assert outcome.err == (
        "error: process 2 of 3 was killed by signal 9, perhaps for want of memory; the same "
        "command goes on from the last epoch\n"
    )

    process = start(config, tmp_path / "killed")
    until(process, "resumed after epoch")
    until(process, "epoch")
    watched = select.poll()
    members = [os.pidfd_open(pid) for pid in ranks_of(process).values()]
    assert len(members) == 3
    process.kill()
    for member in members:  # none outlives the command
        watched.register(member, select.POLLIN)
        assert watched.poll(60_000)
        watched.unregister(member)
        os.close(member)
    ended(process)
    folder = tmp_path / "killed" / undisturbed.name
    assert not (folder / "run.json").exists()

    assert finished(config, tmp_path / "killed") == folder
    assert_same(folder, undisturbed)
    assert not list(tmp_path.glob("killed/.*"))  # no lease is left


def test_two_nodes_are_two_devices_and_end_with_each_other(
    manifest: Path, pair: Path, tmp_path: Path
) -> None:
    """Both on this machine, as a cluster would start them."""
    config = run_of(manifest, LONGER | {"devices": 1, "nodes": 2})
    nodes: list[subprocess.Popen[str]] = []

    def both() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        nodes[:] = [
            start(config, tmp_path / "nodes", **place, NODE_RANK=str(node)) for node in (0, 1)
        ]

    both()
    until(nodes[0], "epoch 1/")
    os.kill(ranks_of(nodes[1])[0], signal.SIGKILL)
    first, second = (ended(node) for node in nodes)
    assert (first.code, second.code) == (1, 1)
    assert "the processes of other nodes are gone" in first.err
    assert "process 2 of 2 was killed by signal 9" in second.err
    both()
    first, second = (ended(node) for node in nodes)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert second.out == ""  # the first node tells
    folder = Path(first.out.splitlines()[-1].removeprefix("run "))
    assert_same(folder, pair)


def test_torchrun_starts_the_processes_as_well(pair: Path, tmp_path: Path) -> None:
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    module = ["-m", "preceptor.training", str(pair / "config.yaml"), str(tmp_path)]
    done = subprocess.run(
        [*runner, "2", *module], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert_same(pair, tmp_path / pair.name)


def test_memory_that_runs_out_on_one_device_ends_the_run(manifest: Path, tmp_path: Path) -> None:
    config = run_of(manifest, {"devices": 2, "epochs": 40, "input_size": 224, "batch_size": 12})
    # Every tensor of 64 KiB is asked of the kernel, which gives little more from a point on.
    process = start(config, tmp_path / "runs", MALLOC_MMAP_THRESHOLD_="65536")
    until(process, "epoch 1/")
    rank = ranks_of(process)[1]
    now = int(Path(f"/proc/{rank}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(rank, resource.RLIMIT_AS, (now + 2**22, now + 2**22))
    outcome = ended(process)
    assert outcome.code == 1
    assert "out of memory on device 2 of 2 (batch_size 12, input_size 224); lower" in outcome.err
    assert outcome.err.count("\n") == 1, outcome.err


def test_what_cannot_be_run_on_several_devices_is_refused(manifest: Path, tmp_path: Path) -> None:
    two = {"devices": 2}
    with pytest.raises(InputError, match=r"with python -m preceptor\.training CONFIG"):
        train(run_of(manifest, two), tmp_path)
    batch_norm = run_of(manifest, two, backbone="test_byobnet")
    expected = ["test_byobnet has batch norm", "needs GPUs", "set training.devices: 1"]
    assert_refused(ended(start(batch_norm, tmp_path / "bn")), expected)
    with pytest.raises(InputError, match="nodes is 2, and MASTER_ADDR, MASTER_PORT, NODE_RANK not"):
        launch(run_of(manifest, {"nodes": 2}), str(tmp_path))
    with pytest.raises(ValueError, match="batch_size is 7, fewer than the 8 devices"):
        Training(devices=4, nodes=2, batch_size=7)
    (tmp_path / "broken.csv").write_text("path,label,split\nnone.png,a,train\n")
    missing = ended(start(run_of(tmp_path / "broken.csv", two), tmp_path / "broken"))
    assert missing.code == 2
    assert missing.err.startswith("error: ")
    assert "none.png" in missing.err
    assert "Traceback" not in missing.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_devices_that_are_not_there(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.device cuda, .* not available"):
        launch(run_of(manifest, {"devices": 2, "device": "cuda"}), str(tmp_path))


def test_shares_divide_a_batch_and_short_batches_join() -> None:
    for count in range(1, 40):
        for world in range(1, 9):
            parts = shares(count, world)
            expected = np.array_split(np.arange(count), world)
            assert [list(range(count))[part] for part in parts] == [list(p) for p in expected]
            sizes = [part.stop - part.start for part in split_batches(count, 8, max(2, world))]
            assert sum(sizes) == count
            assert min(sizes) >= min(count, max(2, world))
