"""Run a study: execution of all steps, results and report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from preceptor.config.files import dump_config
from preceptor.errors import HeldError, InputError
from preceptor.execution.local import Engine, ExecutorOptions, open_executor
from preceptor.execution.perform import HANG_TIMEOUT, Event, WorkerContext
from preceptor.execution.scheduler import Graph, Observer, Scheduler
from preceptor.execution.status import FILE as STATUS
from preceptor.execution.status import StudyStatus
from preceptor.report.write import write_results
from preceptor.study.config import StudyConfig
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Select, Step
from preceptor.study_folder import open_study, other_study_note, write_choices, write_progress
from preceptor.training.run import training_device
from preceptor.utils.leases import BEAT, DEAD_AFTER, holder_of, lease, lease_after_silence
from preceptor.utils.results import digest, file_digest, strict_json, write_atomically
from preceptor.version import __version__

# File with the steps of tables and report, and with the files that were written.
_REPORTED = ".reported"
_WRITTEN = ("study.yaml", "best", "figures", "report.html")


@dataclass
class StudyResult:
    """Outcome of a study.

    Args:
        folder: Study folder, with table.csv, summary.md, report.html and best/.
        failed: Failed and blocked steps, by step id.
        missing: Steps that were not reached.
        computed: Number of steps computed in this call.
    """

    folder: Path
    failed: dict[str, Failure] = field(default_factory=dict)
    missing: int = 0
    computed: int = 0


def run_study(
    study: StudyConfig,
    out: str | Path,
    *,
    jobs: int | None = None,
    engine: Engine = "local",
    address: str | None = None,
    runs_per_gpu: int | None = None,
    hang_timeout: float = HANG_TIMEOUT,
    tell: Callable[[str], None] = print,
    show: Callable[[StudyStatus], AbstractContextManager[Callable[[str], None]]] | None = None,
) -> StudyResult:
    """Run a study, or resume it.

    A repeated call on the same folder resumes the study: finished steps are not repeated, and an
    interrupted training is resumed at its last epoch.

    Args:
        study: Study config.
        out: Study folder; on a cluster, accessible from all machines.
        jobs: Maximum number of concurrent steps; None = as many as cores, GPUs or cluster allow.
        engine: local (worker processes of this machine) or ray (Ray cluster).
        address: Address of the Ray cluster, see `ExecutorOptions`.
        runs_per_gpu: Number of steps per GPU; None = 1.
        hang_timeout: Minutes without progress after which a step is killed and marked failed.
        tell: Function that receives lines of progress.
        show: Display of the status; its context receives lines of text.

    Returns:
        Outcome of the study; failures of steps are reported, not raised.

    Raises:
        InputError: The study cannot start: the config or data is invalid, another process is
            running it, or a required package is not installed.
    """
    options = ExecutorOptions(engine, jobs, runs_per_gpu, address, hang_timeout)
    options = options.checked(study.training.threads, tell)
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: it is a file; name a folder")
    if engine == "local":
        training_device(study.training.of_run())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from error
    with _alone(out, tell):
        if note := other_study_note(study, out):
            tell(note)
        own = [name for name in _WRITTEN if (out / name).exists()]
        if own and not (out / "planned_runs.json").exists():
            raise InputError(
                f"--out {out}: it has {', '.join(own)}, which a study would replace; name a new "
                "folder"
            )
        (out / STATUS).unlink(missing_ok=True)  # of an earlier process
        opened = open_study(study, out, run=True, report_to=tell)
        study = opened.config
        for plan in opened:
            plan.decided = lambda: write_choices(opened, out)
        result = StudyResult(out)
        store = opened.first.protocol.store
        training = study.training
        context = WorkerContext(
            opened.workspaces, store, training.threads, "auto", 60 * hang_timeout
        )
        with contextlib.ExitStack() as stack:
            executor = stack.enter_context(contextlib.closing(open_executor(context, options)))
            status = StudyStatus(opened, out)
            graph = Graph(opened.start())
            write_progress(opened, out)
            write_atomically(out / "study.yaml", dump_config(study))
            try:
                with show(status) if show is not None else contextlib.nullcontext(tell) as told:
                    observer = _Observer(opened, graph, status, result, told)
                    Scheduler(graph, executor, store, observer, told).run()
                status.count(graph)
            finally:
                executor.close()
            result.failed = dict(graph.failed)
            result.missing = len(graph.steps) - len(graph.done) - len(graph.failed)

            write_progress(opened, out, complete=len(graph.done) == len(graph.steps))
            tables = [file_digest(one) for one in sorted(opened.workspaces.caches)]  # with seconds
            records = _dated(opened, graph)
            tells = digest([__version__, dump_config(study), tables, records, result.failed])
            if not _is_reported(out, tells):
                report = write_results(opened, out, result.failed)
                with contextlib.suppress(OSError):
                    # Files without which tables, report and `best/` are written again.
                    best = (path for path in (out / "best").rglob("*") if path.is_file())
                    inside = sorted(path.relative_to(out).as_posix() for path in best)
                    files = ["report.html", *report.files, *inside]
                    write_atomically(out / _REPORTED, strict_json([tells, files]) + "\n")
    return result


@dataclass
class _Observer(Observer):
    """Passes events of steps to the status, the result and the log."""

    study: StudyPlan
    graph: Graph
    status: StudyStatus
    result: StudyResult
    tell: Callable[[str], None]

    def chosen(self, step: Step) -> None:
        assert isinstance(step.work, Select)
        one = step.work.selection
        if step.id != one.step_id:  # a round after which the grid may be extended
            return
        self.status.chosen()
        write_progress(self.study, self.result.folder)
        where, what = f"{one.domain}: " if one.domain else "", f"{one.label} {one.backbone}"
        reason = self.study.plans[one.domain].choices[one].reason
        self.tell(f"{where}chosen: {what.rstrip()}: {reason}")

    def already_done(self, step: Step) -> None:
        self.status.already_done(step, self.graph)

    def started(self, step: Step) -> None:
        self.status.started(step)

    def heard(self, step: Step, event: Event) -> None:
        self.status.heard(step, event)
        if event.kind == "message":  # of an epoch, the run's own log keeps the line
            self.tell(f"{step.title}: {event.text}")

    def requeued(self, step: Step) -> None:
        self.status.requeued(step)

    def finished(self, step: Step, here: bool) -> None:
        line = self.status.finished(step, self.graph)
        if here:
            self.result.computed += 1
            self.tell(line)

    def failed(self, step: Step, reason: str) -> None:
        self.status.failed(step, self.graph)
        self.tell(f"FAILED {step.title}: {reason}")


def _dated(study: StudyPlan, graph: Graph) -> list[tuple[str, int]]:
    """Finished steps with the times of their records: a repeated one may have another result."""
    records = {one: study.folder(graph.steps[one]) / "run.json" for one in sorted(graph.done)}
    return [
        (one, path.stat().st_mtime_ns if path.is_file() else 0) for one, path in records.items()
    ]


def _is_reported(out: Path, tells: str) -> bool:
    """Whether tables and report exist and were written for exactly these results."""
    try:
        of, files = json.loads((out / _REPORTED).read_text(encoding="utf-8"))
        return bool(of == tells) and all((out / name).exists() for name in files)
    except (OSError, ValueError, TypeError):  # missing, or of another version
        return False


@contextlib.contextmanager
def _alone(out: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Context that prevents a second process from running the same study folder."""
    folder = out / "study"
    with contextlib.ExitStack() as stack:
        try:
            who = holder_of(folder)
            if who is None or who.is_here:
                stack.enter_context(lease(folder, wait=0.0))
            else:
                tell(
                    f"{out}: process {who.pid} on {who.host} runs this study, unless it was killed;"
                    f" waiting at most {DEAD_AFTER + BEAT:.0f} s for a sign of it"
                )
                stack.enter_context(lease_after_silence(folder))
        except HeldError as error:
            who = holder_of(folder)
            where = f" ({who.host}, process {who.pid})" if who else ""
            raise InputError(f"{out}: another process is running this study{where}") from error
        yield
