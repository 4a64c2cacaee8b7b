"""Run a study: checks, caches, execution of all steps, results and report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from preceptor.config.yaml_file import dump_config, load_config
from preceptor.data.notes import notes
from preceptor.errors import HeldError, InputError
from preceptor.execution.events import HANG_TIMEOUT, WorkerContext
from preceptor.execution.executors import Engine, check_engine, open_executor
from preceptor.execution.graph import Graph
from preceptor.execution.process import Process
from preceptor.execution.scheduler import Scheduler
from preceptor.execution.status import StudyStatus
from preceptor.report.write import write_results
from preceptor.runtime.cores import checked_jobs, usable_cores
from preceptor.runtime.formatting import as_time
from preceptor.runtime.leases import holder_of, lease
from preceptor.runtime.result_folder import digest, write_atomically
from preceptor.runtime.strict_json import strict_json
from preceptor.study.auto_speed import decide_speed
from preceptor.study.checks import check_devices, check_study
from preceptor.study.config import StudyConfig
from preceptor.study.estimate import count_kinds, estimate_seconds
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.selection import read_choices
from preceptor.study.steps import Select, Selection, Step
from preceptor.study.study_plan import StudyPlan
from preceptor.study.workspaces import Workspaces
from preceptor.tracking.trackers import Trackers, check_trackers, open_trackers
from preceptor.training.prepare import image_formats
from preceptor.version import __version__

# Files without which tables and report are written again, and the file with their steps.
_REPORT = (
    "report.html", "summary.json", "summary.md", "table.md", "table.csv", "results.csv",
    "comparisons.csv", "rates.csv", "runs.csv",
)  # fmt: skip
_REPORTED = ".reported"


@dataclass
class StudyResult:
    """Outcome of a study.

    Args:
        folder: Study folder, with results.csv, table.md, report.html and best/.
        failed: Reasons of failed or blocked steps, by title.
        missing: Steps that were not reached.
        computed: Number of steps computed in this call.
        seconds: Wall time of this call.
    """

    folder: Path
    failed: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    computed: int = 0
    seconds: float = 0.0


def open_study(
    study: StudyConfig, out: Path, *, run: bool, report_to: Callable[[str], None]
) -> StudyPlan:
    """Read the manifests, check the study and make its plan.

    Args:
        study: Study config.
        out: Study folder.
        run: Whether the study will be run: all images not verified by an earlier start are decoded,
            image caches are filled, and settings that are auto are measured.
        report_to: Function that receives lines of progress.

    Raises:
        InputError: The study is invalid; all problems are listed if possible.
    """
    opened = _workspaces(study, out)
    # Of a study that was checked before, networks are built only where something is left to do.
    resumed = run and _was_checked(study, out)
    problems: list[InputError] = []
    for name, own in study.by_domain().items():
        report_to(f"reading {own.manifest}")
        with _collected(problems, name):
            if run:
                forms = [image_formats(own.plain_run(backbone)) for backbone in own.backbones]
                opened[name].verify([form for several in forms for form in several])
                for note in _notes(opened[name]):
                    report_to(f"note: {note}")
            check_study(own, opened[name], networks=not resumed)
    _raise(problems)
    plans = _plans(study, opened, out, report_to=report_to, probe=run)
    if resumed and not _is_done(_plans(plans.config, opened, out)):
        for name, own in study.by_domain().items():
            with _collected(problems, name):
                check_study(own, opened[name])
        _raise(problems)
    return plans


def read_study(study: StudyConfig, out: Path) -> StudyPlan:
    """Plan of a study that was checked before; settings that are auto are not measured.

    Args:
        study: Study config.
        out: Study folder.

    Raises:
        InputError: A manifest cannot be read.
    """
    return _plans(study, _workspaces(study, out), out)


def _workspaces(study: StudyConfig, out: Path) -> dict[str, Workspaces]:
    """Workspaces of each domain, not opened yet."""
    store = _store(study, out)
    return {name: Workspaces.of_study(own, store, name) for name, own in study.by_domain().items()}


def _store(study: StudyConfig, out: Path) -> Path:
    return (study.store or out / "store").absolute()


def _plans(
    study: StudyConfig,
    opened: dict[str, Workspaces],
    out: Path,
    *,
    report_to: Callable[[str], None] = lambda line: None,
    probe: bool = False,
) -> StudyPlan:
    """Plan of a study on its manifests, with the choices of an earlier start."""
    manifests = [one.first.manifest for one in opened.values()]
    study = decide_speed(study, manifests, out / "study.yaml", report_to, probe=probe)
    choices = read_choices(out / "selection.json", list(opened))
    store = _store(study, out)
    plans = {
        name: Plan(
            Protocol(own, opened[name], store, domain=name), remembered=choices.get(name, {})
        )
        for name, own in study.by_domain().items()
    }
    return StudyPlan(study, plans)


def _was_checked(study: StudyConfig, out: Path) -> bool:
    """Whether the same study was started in this folder before."""
    if not (out / "study.yaml").is_file():
        return False
    try:
        before = load_config(out / "study.yaml", StudyConfig)
    except InputError:
        return False
    return before.model_copy(update={"speed": study.speed}) == study


def _replay(study: StudyPlan) -> Graph:
    """Graph of a study with its finished steps: selections are made, nothing is computed."""
    graph = Graph(study.start())
    while (step := graph.take()) is not None:
        if isinstance(step.work, Select):
            graph.add(step.work.choose())
            graph.finish(step.id)
        elif study.is_finished(step):
            graph.finish(step.id)
    return graph


def _is_done(study: StudyPlan) -> bool:
    """Whether every step has finished, without verification of checksums."""
    try:
        graph = _replay(study)
    except (InputError, OSError, ValueError):  # what is damaged, the scheduler makes again
        return False
    return len(graph.done) == len(graph.steps)


@contextlib.contextmanager
def _collected(problems: list[InputError], domain: str) -> Iterator[None]:
    """Context that collects an input error of a domain instead of raising it."""
    try:
        yield
    except InputError as error:
        problems.append(InputError(f"domain {domain}: {error}") if domain else error)


def _raise(problems: Sequence[InputError]) -> None:
    """Raise all collected problems as one error."""
    if len(problems) > 1:
        raise InputError("\n".join(map(str, problems)))
    if problems:
        raise problems[0]


def _notes(workspaces: Workspaces) -> list[str]:
    """Notes on the manifests; a note that applies to several seeds is given once."""
    found = [note for one in workspaces.all() for note in notes(one.manifest, one.index)]
    return list(dict.fromkeys(found))


def run_study(
    study: StudyConfig,
    out: str | Path,
    *,
    jobs: int | None = None,
    engine: Engine = "local",
    address: str | None = None,
    runs_per_gpu: int | None = None,
    hang_timeout: float = HANG_TIMEOUT,
    track: Sequence[str] = (),
    track_uri: str | None = None,
    early: Process | None = None,
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
        address: Address of the Ray cluster, see `executors.open_executor`.
        runs_per_gpu: Number of steps per GPU; None = from the measured peak memory of trainings.
        hang_timeout: Minutes without progress after which a step is killed and marked failed.
        track: Trackers of parameters and curves: tensorboard, mlflow, or both.
        track_uri: URI of the MLflow server or database; None = MLFLOW_TRACKING_URI, or a database
            in the study folder.
        early: Worker process that was started in advance, for `local`.
        tell: Function that receives lines of progress.
        show: Display of the status; its context receives lines of text.

    Returns:
        Outcome of the study; failures of steps are reported, not raised.

    Raises:
        InputError: The study cannot start: the config or data is invalid, another process is
            running it, or a required package is not installed.
    """
    check_engine(engine, address)
    check_trackers(track, track_uri)
    out = Path(out).absolute()
    if engine == "local":
        jobs = checked_jobs(jobs, study.training.threads, tell)
        check_devices(study.training)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from error
    started = time.monotonic()
    with _alone(out):
        opened = open_study(study, out, run=True, report_to=tell)
        study = opened.config
        write_atomically(out / "study.yaml", dump_config(study))
        for plan in opened:
            plan.decided = lambda: _write_choices(opened, out)
        result = StudyResult(out)
        store = opened.first.protocol.store
        training = study.training
        context = WorkerContext(
            opened.workspaces, store, training.threads, training.device, 60 * hang_timeout
        )
        with contextlib.ExitStack() as stack:
            trackers = open_trackers(track, opened, out, track_uri, tell)
            stack.callback(trackers.close)
            executor = open_executor(
                context, engine=engine, jobs=jobs, runs_per_gpu=runs_per_gpu, address=address,
                early=early,
            )  # fmt: skip
            stack.callback(executor.close)
            status = StudyStatus(opened, out)
            graph = Graph(opened.start())
            try:
                with show(status) if show is not None else contextlib.nullcontext(tell) as told:
                    observer = _Observer(opened, graph, status, trackers, result, told)
                    Scheduler(graph, executor, store, observer, told).run()
                status.count(graph)
            finally:
                executor.close()
                result.seconds = time.monotonic() - started
            failed = {graph.steps[key].title: failure for key, failure in graph.failed.items()}
            result.failed = {title: failure.reason for title, failure in failed.items()}
            result.missing = len(graph.steps) - len(graph.done) - len(graph.failed)

            _write_choices(opened, out)
            tells = digest([__version__, dump_config(study), sorted(graph.done), result.failed])
            if track or not _is_reported(out, tells):
                report = write_results(opened, out, failed)
                with contextlib.suppress(OSError):
                    write_atomically(out / _REPORTED, tells)
                trackers.study(result.failed, report)
    return result


@dataclass
class _Observer:
    """Observer that passes events of steps to the status, the trackers, the result and the log."""

    study: StudyPlan
    graph: Graph
    status: StudyStatus
    trackers: Trackers
    result: StudyResult
    tell: Callable[[str], None]

    def chosen(self, step: Step) -> None:
        assert isinstance(step.work, Select)
        selection = step.work.selection
        where = f"{selection.domain}: " if selection.domain else ""
        what = f"{selection.role} {selection.backbone}".rstrip()
        what += f" after {selection.seeds} seeds" if selection.seeds else ""
        reason = self.study.plans[selection.domain].choices[selection].reason
        self.tell(f"{where}chosen: {what}: {reason}")

    def already_done(self, step: Step) -> None:
        self.trackers.finished(step)

    def started(self, step: Step) -> None:
        self.status.started(step)
        self.trackers.begun(step)

    def assigned(self, step: Step, machine: str) -> None:
        self.status.assigned(step, machine)

    def epoch(self, step: Step, line: str) -> None:  # the run's own log keeps the line
        self.status.progress(step, line)
        self.trackers.epoch(step)

    def message(self, step: Step, line: str) -> None:
        self.status.progress(step, line)
        self.tell(f"{step.title}: {line}")

    def requeued(self, step: Step) -> None:
        self.status.requeued(step)

    def finished(self, step: Step, here: bool) -> None:
        line = self.status.finished(step, self.graph)
        self.trackers.finished(step)
        if here:
            self.result.computed += 1
            self.tell(line)

    def failed(self, step: Step, reason: str) -> None:
        self.status.failed(step, self.graph)
        self.trackers.failed(step, reason)
        self.tell(f"FAILED {step.title}: {reason}")


def _name(selection: Selection) -> str:
    return selection.name


def _write_choices(study: StudyPlan, out: Path) -> None:
    chosen = {
        # In an order that does not depend on the order of execution.
        domain: {one.name: plan.choices[one].as_dict() for one in sorted(plan.choices, key=_name)}
        for domain, plan in study.plans.items()
    }
    text = strict_json(chosen if study.has_domains else chosen[""])
    with contextlib.suppress(OSError):  # a full disk must not stop the running steps
        write_atomically(out / "selection.json", text + "\n")


def _is_reported(out: Path, tells: str) -> bool:
    """Whether tables and report exist and were written for exactly these finished steps.

    A repeated step has the same result, so that ids are sufficient.
    """
    try:
        same = (out / _REPORTED).read_text(encoding="utf-8") == tells
    except (OSError, UnicodeDecodeError):
        return False
    return same and all((out / name).is_file() for name in _REPORT)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Context that prevents a second process from running the same study folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lease(out / "study", wait=0.0))
        except HeldError as error:
            who = holder_of(out / "study")
            where = f" ({who.host}, process {who.pid})" if who else ""
            raise InputError(f"{out}: another process is running this study{where}") from error
        yield


def reopen(folder: str | Path) -> StudyPlan:
    """Plan of a study folder with the steps known so far, for reports at any time.

    Stored choices are used if their scores have not changed, and are made again otherwise. No
    network is built, and nothing is trained.

    Raises:
        InputError: The folder is not a study folder, or its data has changed.
    """
    folder = Path(folder).absolute()
    file = folder / "study.yaml"
    if not file.is_file():
        raise InputError(f"{folder} is not a study folder: it has no study.yaml")
    study = load_config(file, StudyConfig)
    opened = read_study(study, folder)
    _replay(opened)
    return opened


def print_plan(
    study: StudyConfig, out: Path, jobs: int | None, tell: Callable[[str], None]
) -> None:
    """Print the plan of a study: both stages, their steps and the estimated time.

    Args:
        study: Study config.
        out: Study folder; its finished steps are not counted.
        jobs: Maximum number of concurrent steps.
        tell: Function that receives the lines.
    """
    threads = study.training.threads
    jobs = checked_jobs(jobs, threads, tell) or max(1, usable_cores() // threads)
    opened = open_study(study, out, run=False, report_to=tell)
    total = 0.0
    names = (
        "stage 1 (baselines, ceiling, Teachers, probe Students)",
        "stage 2 (Students, controls, tests)",
    )
    for domain, plan in opened.plans.items():
        if domain:
            tell(f"{domain}:")
        workspace = plan.protocol.workspace
        validation = len(workspace.split_rows("val"))
        for name, steps in zip(names, plan.outline(), strict=True):
            left = [step for step in steps if not opened.is_finished(step)]
            seconds = estimate_seconds(left, study, workspace.manifest.classes, validation, jobs)
            total += seconds
            tell(f"{name}: {count_kinds(steps)}")
            tell(f"  left: {len(left)} of {len(steps)}; about {as_time(seconds)}")
    tell(f"together about {as_time(total)} with {jobs} job{'s' if jobs != 1 else ''}")
