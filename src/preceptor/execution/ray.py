"""Execution on a Ray cluster: one task per step, on machines that share the store.

Ray places tasks and retries tasks whose worker or machine was lost; the graph determines the order,
and the leases of the store prevent double computation. Interrupted steps are resumed on any
machine: a training from its last epoch, map making from its last shard.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from itertools import starmap
from typing import Any

from preceptor.errors import InputError
from preceptor.execution.events import Event, WorkerContext
from preceptor.execution.failure_log import keep_reason, log_of
from preceptor.execution.gpu_sharing import GpuPacking
from preceptor.execution.ray_connection import connect, imported_ray
from preceptor.execution.ray_mailbox import Mailbox
from preceptor.execution.ray_task import do
from preceptor.study.steps import Step
from preceptor.utils.process import hung

# Number of retries by Ray of a step whose worker or machine was lost.
LOST_RETRIES = 3
# Seconds between two queries of the machines of the cluster.
LOOK = 2.0
# Seconds until a lost mailbox is replaced.
AGAIN = 0.5
# Queued steps per slot of the cluster: no slot is idle while the next step is chosen, and
# autoscaling sees the demand.
AHEAD = 2


class RayExecutor:
    """Executor that runs steps as tasks of a Ray cluster.

    Args:
        context: Data and settings of the study; the store must be accessible from all machines.
        jobs: Maximum number of concurrent steps; None = as many as fit on the cluster, whose size
            may change at any time.
        runs_per_gpu: Number of steps per GPU; None = from the measured peak memory of trainings.
        address: Address of the cluster, or auto for the cluster of this machine; None =
            RAY_ADDRESS, or a local Ray instance, which is started for this study. An existing
            connection of this process is used.

    Raises:
        InputError: Ray is not installed, there is no cluster at the address, or no machine has the
            resources of a step.
    """

    def __init__(
        self,
        context: WorkerContext,
        *,
        jobs: int | None = None,
        runs_per_gpu: int | None = None,
        address: str | None = None,
    ) -> None:
        self._ray = ray = imported_ray()
        self._context, self._jobs = context, jobs
        self._ours = not ray.is_initialized()
        if self._ours:
            connect(ray, address)
        self._gpu = False
        self.packing = GpuPacking(runs_per_gpu, most=1)
        self._tasks: dict[Any, tuple[Step, int]] = {}  # with the number of steps per GPU
        self._looked = -LOOK
        self._slots = 0
        self._count_slots()
        if context.device == "cuda" and not self._gpu:
            self.close()
            raise InputError("training.device is cuda, and the cluster has no GPU")
        if not self._slots:
            self.close()
            raise InputError(
                f"no machine of the cluster has {context.threads} core"
                f"{'s' if context.threads > 1 else ''} for a step (training.threads)"
            )
        # On GPUs a process computes one step, since torch keeps using the first visible GPU.
        self._do = {False: ray.remote(do), True: ray.remote(max_calls=1)(do)}
        self._token = uuid.uuid4().hex
        self._shared = ray.put(context)
        self._lines = self._mailbox()
        self._next = self._lines.take.remote()

    @property
    def free(self) -> int:
        """Number of steps that the cluster accepts now, including queued ones."""
        if time.monotonic() - self._looked > LOOK:
            self._count_slots()
        most = self._slots * AHEAD
        return max(0, (most if self._jobs is None else min(most, self._jobs)) - len(self._tasks))

    def start(self, step: Step) -> None:
        """Submit a step to the cluster."""
        log = log_of(step.id, self._context.store)
        if hung(log):  # log of an earlier failure, which may not recur
            log.unlink(missing_ok=True)
        exclusive = not self._gpu or self.packing.runs == 1
        task = self._do[self._gpu].options(**self._needs(step.title, self.packing.runs))
        reference = task.remote(self._token, self._shared, step, self._lines, exclusive)
        self._tasks[reference] = (step, self.packing.runs)

    def _needs(self, name: str, sharing: int) -> dict[str, Any]:
        """Options of a task: resources, and variables of its process.

        Args:
            name: Name of the task.
            sharing: Number of tasks that share a GPU.
        """
        variables = {"OMP_NUM_THREADS": str(self._context.threads)}
        if not self._gpu:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        if folders := os.environ.get("PYTHONPATH"):  # modules of network factories
            variables["PYTHONPATH"] = folders
        return {
            "name": name,
            "num_cpus": self._context.threads,
            "num_gpus": 1 / sharing if self._gpu else 0,
            "max_retries": LOST_RETRIES,
            "retry_exceptions": False,
            "runtime_env": {"env_vars": variables},
        }

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the next events.

        Args:
            timeout: Maximum waiting time in seconds; None = unlimited.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            pause = LOOK if until is None else min(LOOK, max(0.0, until - time.monotonic()))
            waiting = [self._next, *self._tasks]
            ended, _ = self._ray.wait(waiting, num_returns=1, timeout=pause)
            if ended:  # and all that ended meanwhile
                ended, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
            if self._next in ended:
                ended.remove(self._next)
                yield from self._told()
                if not ended:
                    return
            for reference in ended:
                yield self._ended(reference)
            if ended or (until is not None and time.monotonic() >= until):
                return
            if self.free:
                return  # a machine has joined: more can be started

    def close(self) -> None:
        """Cancel running steps and stop a Ray instance that was started for this study."""
        for reference in getattr(self, "_tasks", {}):
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._tasks = {}
        if self._ours:
            self._ray.shutdown()
        elif getattr(self, "_lines", None) is not None:
            self._ray.kill(self._lines)

    def _ended(self, reference: Any) -> Event:
        """Last event of a task: its own, or the failure of a task that was lost permanently."""
        step, sharing = self._tasks.pop(reference)
        exceptions = self._ray.exceptions
        try:
            event: Event = self._ray.get(reference)
        except exceptions.OutOfMemoryError:
            return self._lost(step, "its machine ran out of memory, each time it was tried")
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError) as error:
            told = " ".join(str(error).split())[:200]
            return self._lost(
                step, f"its worker or machine was lost {1 + LOST_RETRIES} times: {told}"
            )
        except exceptions.RayError as error:
            told = " ".join(str(error).split())[-300:]
            return self._lost(step, f"{type(error).__name__}: {told}")
        if event.kind == "out_of_memory":
            self.packing.out_of_memory(sharing)
        elif self._gpu and event.kind == "done" and step.kind == "train":
            self.packing.learn_from(step.folder(self._context.store))
        return event

    def _lost(self, step: Step, reason: str) -> Event:
        """Failure of a step whose worker could not report the reason."""
        return Event("failed", step.id, keep_reason(step, self._context.store, reason))

    def _told(self) -> Iterator[Event]:
        """New messages of the workers; a lost mailbox is replaced."""
        known = {step.id for step, _ in self._tasks.values()}
        try:
            messages = self._ray.get(self._next)
        except self._ray.exceptions.RayError:
            time.sleep(AGAIN)
            self._lines, messages = self._mailbox(), []
        self._next = self._lines.take.remote()
        yield from (event for event in starmap(Event, messages) if event.step in known)

    def _mailbox(self) -> Any:
        """Actor on the node of this process that stores messages until they are read."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        return (
            self._ray.remote(Mailbox)
            .options(
                num_cpus=0,
                max_restarts=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote()
        )

    def _nodes(self) -> list[dict[str, float]]:
        """Resources of each machine that is alive."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _count_slots(self) -> int:
        """Number of concurrent steps on all machines; updates the number of GPUs.

        A study that has begun on GPUs does not go on without: while no machine has one, there is
        no room for a step.
        """
        self._looked = time.monotonic()
        self._slots = 0
        nodes = self._nodes()
        with_gpus = [node for node in nodes if node.get("GPU")]
        self._gpu = self._gpu or (self._context.device != "cpu" and bool(with_gpus))
        if with_gpus and self._gpu:  # limited by the cores per GPU of the smallest machine
            cores = min(node.get("CPU", 1.0) / node["GPU"] for node in with_gpus)
            self.packing.most = max(1, int(cores // self._context.threads))
        for node in nodes:
            fit = int(node.get("CPU", 0.0) // self._context.threads)
            if self._gpu:
                fit = min(fit, int(node.get("GPU", 0.0) * self.packing.runs))
            self._slots += fit
        return self._slots
