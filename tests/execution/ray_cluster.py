"""A Ray cluster of several nodes on this machine, whose nodes can be killed as a machine dies."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class Nodes:
    """A head without cores, and nodes of one core each."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        head = {
            "num_cpus": 0,
            "include_dashboard": False,
            "include_log_monitor": False,
            "no_monitor": True,
            "object_store_memory": 100 * 2**20,
            # A dead node is noticed soon, and no process is started before there is a task for it.
            "_system_config": {
                "worker_niceness": 0,  # else 15, and whoever else works starves them
                "enable_worker_prestart": False,
                "health_check_initial_delay_ms": 500,
                "health_check_period_ms": 500,
            },
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        """What `--address` takes."""
        return str(self._cluster.address)

    def add(self, gpus: int = 0) -> None:
        """A node joins, with as many GPUs as it says it has."""
        store = 100 * 2**20
        node = self._cluster.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=store)
        self.nodes.append(node)

    def kill(self, node: Any) -> None:
        """SIGKILL to all processes of a node: its raylet, its agents and its workers."""
        roots = [info.process.pid for infos in node.all_processes.values() for info in infos]
        for pid in [child for root in roots for child in _below(root)] + roots:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.nodes.remove(node)

    def busy_with(self, node: Any, title: str) -> bool:
        """Whether a worker of a node does a step whose title begins so."""
        for info in node.all_processes["raylet"]:
            for pid in _below(info.process.pid):
                with contextlib.suppress(OSError):
                    if f"ray::{title}" in Path(f"/proc/{pid}/cmdline").read_text():
                        return True
        return False

    def has(self, node: Any, pid: int) -> bool:
        """Whether a process belongs to a node."""
        return any(pid in _below(info.process.pid) for info in node.all_processes["raylet"])

    def close(self) -> None:
        """End all of them."""
        self._cluster.shutdown()


@contextlib.contextmanager
def ray_nodes(count: int) -> Iterator[Nodes]:
    """A cluster while the block runs."""
    nodes = Nodes(count)
    try:
        yield nodes
    finally:
        nodes.close()


def _below(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    return found
