"""Status of a running study, shown in its terminal and written to `status.json`."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from preceptor.errors import InputError
from preceptor.execution.perform import Event
from preceptor.execution.scheduler import Graph
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Kind, Step
from preceptor.utils.leases import holder_of
from preceptor.utils.results import strict_json, write_atomically

FILE = "status.json"


@dataclass
class Running:
    """A running step."""

    kind: Kind
    title: str
    since: float  # seconds since the epoch
    line: str = ""  # of progress, the last one
    where: str = ""  # machine of a cluster; "" while the step waits for one


@dataclass
class Status:
    """Progress of a study, and the process that runs it."""

    done: int = 0
    total: int = 0  # known and expected steps
    running: list[Running] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)  # and blocked steps, by step id
    left: float | None = None  # seconds; None before the first step has finished
    updated: float = 0.0  # seconds since the epoch
    host: str = ""
    pid: int = 0


class StudyStatus:
    """Status of a running study, written to the study folder at every change.

    Steps finished in earlier calls are counted as done.
    """

    def __init__(self, study: StudyPlan, out: Path) -> None:
        self._study, self._file = study, out / FILE
        self._before: dict[str, bool] = {}  # whether a step had finished when it was first foreseen
        self._costs: dict[str, float] = {}  # of the expected steps that are left
        self._chosen = False  # since the steps were foreseen
        self._running: dict[str, Running] = {}
        self._done_cost = 0.0
        self._started = time.monotonic()
        self.status = Status(host=socket.gethostname(), pid=os.getpid())
        self._foresee()

    def started(self, step: Step) -> None:
        """A step was given to a worker."""
        self._running[step.id] = Running(step.kind, step.title, time.time())
        self._write()

    def heard(self, step: Step, event: Event) -> None:
        """A running step was assigned to a machine, or has a new line of progress."""
        if running := self._running.get(step.id):
            if event.kind == "assigned":
                running.where, running.since = event.text, time.time()
            else:
                running.line = event.text
        self._write()

    def requeued(self, step: Step) -> None:
        """A step did not finish and will be started again."""
        self._running.pop(step.id, None)
        self._write()

    def chosen(self) -> None:
        """A selection was made: other steps may follow than those foreseen."""
        self._chosen = True

    def finished(self, step: Step, graph: Graph) -> str:
        """A step has finished; returns a message."""
        seconds = time.time() - self._running.pop(step.id).since
        self._done_cost += step.cost
        self.count(graph)
        left = f"about {(self.status.left or 0) / 60:.0f} min left"
        return f"[{self.status.done}/{self.status.total}] {step.title}: {seconds:.0f} s; {left}"

    def already_done(self, step: Step, graph: Graph) -> None:
        """A step had finished before, or was finished by another job, which counts as well."""
        if not self._before.get(step.id, True):
            self._done_cost += step.cost
            self.count(graph)

    def failed(self, step: Step, graph: Graph) -> None:
        """A step failed, and the steps that need it are blocked."""
        self._running.pop(step.id, None)
        self.count(graph)

    def count(self, graph: Graph) -> None:
        """Update the counts and the time left from the graph."""
        if self._chosen:  # once for several selections
            self._chosen = False
            self._foresee()
        for identity in (*graph.done, *graph.failed):
            self._costs.pop(identity, None)
        if self._done_cost:
            elapsed = time.monotonic() - self._started
            self.status.left = sum(self._costs.values()) * elapsed / self._done_cost
        self.status.done = graph.total_done
        self.status.total = max(self._foreseen, graph.total)
        self.status.failed = dict(graph.failed)
        self._write()

    def _foresee(self) -> None:
        """Update the steps that are expected with the choices made so far."""
        first, later = self._study.outline()
        foreseen = [step for step in [*first, *later] if step.kind != "select"]
        for step in foreseen:
            if step.id not in self._before:
                self._before[step.id] = self._study.is_finished(step)
        self._costs = {step.id: step.cost for step in foreseen if not self._before[step.id]}
        self._foreseen = self.status.total = len(foreseen)

    def _write(self) -> None:
        self.status.running = list(self._running.values())
        self.status.updated = time.time()
        with contextlib.suppress(OSError):  # a full disk must not stop the running steps
            text = strict_json(asdict(self.status)) + "\n"
            write_atomically(self._file, text, flush=False)


def read_status(out: Path) -> tuple[Status, bool]:
    """Read the status of a study folder, and whether a process is running the study.

    Raises:
        InputError: The folder is not a study folder, or no study was run in it.
    """
    try:
        status = TypeAdapter(Status).validate_json((out / FILE).read_bytes())
    except FileNotFoundError as error:
        if who := holder_of(out / "study"):
            raise InputError(
                f"{out}: process {who.pid} on {who.host} is starting the study"
            ) from error
        fix = "run a study with this --out, or repeat one that could not start"
        raise InputError(f"{out}: no study has been started here (no {FILE}); {fix}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{out / FILE}: cannot be read; the study writes it again") from error
    return status, holder_of(out / "study") is not None
