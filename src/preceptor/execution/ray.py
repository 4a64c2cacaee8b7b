"""Execution on a Ray cluster: one task per step, on machines that share the store.

Ray places tasks and retries tasks whose worker or machine was lost; the leases of the store prevent
double computation. Interrupted steps are resumed on any machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from preceptor.errors import InputError, RunFailedError
from preceptor.utils.process import bulk_import

with bulk_import():  # in a process of the cluster, which receives its first task
    from preceptor.execution.perform import Event, WorkerContext, carry_out, keep_reason
    from preceptor.study.steps import Step
    from preceptor.utils.process import keep_freed_memory
    from preceptor.utils.text import silence

LOST_RETRIES = 3  # by Ray, of a step whose worker or machine was lost
LOOK = 2.0  # seconds between two queries of the machines of the cluster
AGAIN = 0.5  # seconds until a lost mailbox is replaced
REACHED_WITHIN = 10.0  # seconds in which the machine of an address must answer
# Queued steps per slot of the cluster: no slot is idle while the next step is chosen, and
# autoscaling sees the demand.
AHEAD = 2

_known: dict[str, WorkerContext] = {}  # by study: a worker process keeps its manifests open


def do(token: str, context: WorkerContext, step: Step, mailbox: Any) -> Event:
    """Task: execute a step of the study `token` in a process of the cluster."""
    silence()
    keep_freed_memory()
    context = _known.setdefault(token, context)

    def say(event: Event) -> None:
        with contextlib.suppress(Exception):  # messages are informative only and may be lost
            mailbox.put.remote((event.kind, event.step, event.text))

    say(Event("assigned", step.id, socket.gethostname()))
    return carry_out(step, context, say)


class RayExecutor:
    """Executor that runs steps as tasks of a Ray cluster, whose size may change at any time.

    See `ExecutorOptions` for the arguments. An existing connection of this process is used.
    """

    def __init__(
        self,
        context: WorkerContext,
        *,
        jobs: int | None = None,
        runs_per_gpu: int = 1,
        address: str | None = None,
    ) -> None:
        # Messages of Ray, and its control of the GPUs that tasks see, are switched off.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray: Any = ray
        self._context, self._jobs = context, jobs
        self._ours = not ray.is_initialized()
        if self._ours:
            connect(ray, address)
        self._gpu = False
        self._each = runs_per_gpu
        self._tasks: dict[Any, Step] = {}
        self._looked = -LOOK
        self._slots = 0
        self._count_slots()
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
        self._context.forget_hang(step)
        task = self._do[self._gpu].options(**self._needs(step.title))
        self._tasks[task.remote(self._token, self._shared, step, self._lines)] = step

    def _needs(self, name: str) -> dict[str, Any]:
        """Options of a task: resources, and variables of its process."""
        variables = {"OMP_NUM_THREADS": str(self._context.threads)}
        if not self._gpu:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        if folders := os.environ.get("PYTHONPATH"):  # modules of network factories
            variables["PYTHONPATH"] = folders
        return {
            "name": name,
            "num_cpus": self._context.threads,
            "num_gpus": 1 / self._each if self._gpu else 0,
            "max_retries": LOST_RETRIES,
            "retry_exceptions": False,
            "runtime_env": {"env_vars": variables},
        }

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the next events, at most `timeout` seconds."""
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
        step = self._tasks.pop(reference)
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
        return event

    def _lost(self, step: Step, reason: str) -> Event:
        """Failure of a step whose worker could not report the reason."""
        return Event("failed", step.id, keep_reason(step, self._context.store, reason))

    def _told(self) -> Iterator[Event]:
        """New messages of the workers; a lost mailbox is replaced."""
        running = {step.id for step in self._tasks.values()}
        try:
            messages = self._ray.get(self._next)
        except self._ray.exceptions.RayError:
            time.sleep(AGAIN)
            self._lines, messages = self._mailbox(), []
        self._next = self._lines.take.remote()
        yield from (Event(*message) for message in messages if message[1] in running)

    def _mailbox(self) -> Any:
        """Actor on the machine of this process that stores messages until they are read."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        class Mailbox:  # local, so that Ray sends it by value: its process imports nothing of ours
            def __init__(self) -> None:
                self._messages: list[tuple[str, str, str]] = []  # fields of an `Event`
                self._some = asyncio.Event()

            async def put(self, message: tuple[str, str, str]) -> None:
                self._messages.append(message)
                self._some.set()

            async def take(self) -> list[tuple[str, str, str]]:
                await self._some.wait()
                self._some.clear()
                messages, self._messages = self._messages, []
                return messages

        node = self._ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
        return self._ray.remote(Mailbox).options(**options).remote()

    def _count_slots(self) -> int:
        """Number of concurrent steps; a study that has begun on GPUs waits while there is none."""
        self._looked = time.monotonic()
        self._slots = 0
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        has_gpus = any(node.get("GPU") for node in nodes)
        self._gpu = self._gpu or (self._context.device != "cpu" and has_gpus)
        for node in nodes:
            fit = int(node.get("CPU", 0.0) // self._context.threads)
            if self._gpu:
                fit = min(fit, int(node.get("GPU", 0.0) * self._each))
            self._slots += fit
        return self._slots


def connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start a local Ray instance; otherwise an error of one line."""
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    parts = urlsplit(where if "://" in where else f"//{where}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"--address {where}: {error}; write HOST:PORT or auto") from error
    if host is not None and port is not None:  # Ray itself waits for many minutes
        try:
            socket.create_connection((host, port), timeout=REACHED_WITHIN).close()
        except OSError as error:
            raise _no_cluster(where, error.strerror or error) from error
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if where == "local":
        options["include_dashboard"] = False
    try:
        ray.init(address=where, **options)
    except Exception as error:  # Ray raises plain exceptions as well, as after a timeout
        reason = " ".join(str(error).split())[:200]
        if where == "local":
            raise RunFailedError(f"Ray could not be started on this machine ({reason})") from error
        raise _no_cluster(where, reason) from error


def _no_cluster(where: str, reason: object) -> InputError:
    return InputError(
        f"--address {where}: no Ray cluster there ({reason}); start one with `ray start --head`"
    )
