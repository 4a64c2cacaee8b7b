"""A run of two nodes, or of processes that torchrun has started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import HANGS
from tests.launches import (
    LONGER,
    assert_same,
    ended,
    finished,
    ranks_of,
    run_of,
    start,
    until,
)

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


@pytest.fixture(scope="module")
def pair(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two devices that nothing disturbed."""
    return finished(run_of(manifest, LONGER), tmp_path_factory.mktemp("pair") / "runs")


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that no other program is given; a server that may use it again listens on it."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def test_two_nodes_are_two_devices_and_end_with_each_other(
    manifest: Path, pair: Path, tmp_path: Path
) -> None:
    """Both on this machine, as a cluster would start them."""
    config = run_of(manifest, LONGER | {"devices": 1, "nodes": 2})
    go = tmp_path / "go"

    def both(port: int) -> list[subprocess.Popen[str]]:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return [
            start(config, tmp_path / "nodes", ("epoch 1/", go), **place, NODE_RANK=str(node))
            for node in (0, 1)
        ]

    with kept_port() as port:
        nodes = both(port)
        until(nodes[0], "epoch 1/")
        os.kill(ranks_of(nodes[1])[0], signal.SIGKILL)
        go.touch()
        first, second = (ended(node) for node in nodes)
    assert (first.code, second.code) == (1, 1)
    assert "the processes of other nodes are gone" in first.err
    assert "process 2 of 2 was killed by signal 9" in second.err
    with kept_port() as port:
        first, second = (ended(node) for node in both(port))
    assert (first.code, second.code) == (0, 0), (first, second)
    assert second.out == ""  # the first node tells
    folder = Path(first.out.splitlines()[-1].removeprefix("run "))
    assert_same(folder, pair)


def test_torchrun_starts_the_processes_as_well(pair: Path, tmp_path: Path) -> None:
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    module = ["-m", "preceptor.training", str(pair / "config.yaml"), str(tmp_path)]
    done = subprocess.run(
        [*runner, "2", *module], capture_output=True, text=True, check=False, timeout=HANGS
    )
    assert done.returncode == 0, done.stderr
    assert_same(pair, tmp_path / pair.name)
