"""Run a study: check everything, fill the caches, walk the graph, write results and report."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from preceptor.configfile import dump_config, load_config
from preceptor.errors import HeldError, InputError
from preceptor.leases import holder_of, lease
from preceptor.models import build_model
from preceptor.runs import damaged_files, is_finished, write_atomically
from preceptor.study.board import Board
from preceptor.study.checks import check_study
from preceptor.study.domains import StudyPlan
from preceptor.study.draws import Workspaces
from preceptor.study.estimate import as_time, count_kinds, estimate_seconds
from preceptor.study.graph import Graph, selected
from preceptor.study.local import Event, LocalExecutor
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.settings import StudyConfig
from preceptor.study.speed import decide_speed

AGAIN = 2.0  # seconds after which a step that another process does is asked for again


@dataclass
class StudyResult:
    """How a study ended.

    Args:
        folder: The study folder, with results.csv, table.md, report.html and best/.
        failed: Steps that could not be done, by title, with the reason.
        missing: Steps that were not reached.
        computed: Steps done now; the others were there already.
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
    """Read the manifests, check the study against them and make its plans.

    Args:
        study: The config.
        out: The study folder.
        run: It is going to be run: every image is decoded first, and what is auto is measured.
        report_to: Receives lines of progress.

    Raises:
        InputError: Anything that would stop the study later, all at once where it can be.
    """
    store = (study.store or out / "store").absolute()
    opened: dict[str, Workspaces] = {}
    wrong: list[InputError] = []
    for name, own in study.by_domain().items():
        report_to(f"reading {own.manifest}")
        workspaces = Workspaces.of_study(own, store, name)
        try:
            if run:
                workspaces.verify()
            check_study(own, workspaces)
        except InputError as error:
            wrong.append(InputError(f"domain {name}: {error}") if name else error)
        opened[name] = workspaces
    if len(wrong) > 1:
        raise InputError("\n".join(map(str, wrong)))
    if wrong:
        raise wrong[0]
    manifest = next(iter(opened.values())).first.manifest
    study = decide_speed(study, manifest, out / "study.yaml", report_to, probe=run)
    plans = {
        name: Plan(Protocol(own, opened[name], store, domain=name))
        for name, own in study.by_domain().items()
    }
    return StudyPlan(study, plans)


def run_study(
    study: StudyConfig,
    out: str | Path,
    *,
    jobs: int | None = None,
    tell: Callable[[str], None] = print,
    show: Callable[[Board], AbstractContextManager[Callable[[str], None]]] | None = None,
) -> StudyResult:
    """Run the whole protocol, or what is left of it.

    The same call on the same folder goes on where an earlier one stopped: a finished step is
    never repeated, an interrupted training goes on from its last epoch.

    Args:
        study: The config.
        out: The study folder.
        jobs: Worker processes; None = cores ÷ threads of a run. Never more than that.
        tell: Receives lines of progress.
        show: Shows the board while steps are done, and gives what tells lines meanwhile.

    Returns:
        How it ended; failures are told, not raised.

    Raises:
        InputError: The study cannot start: its config or data is wrong, or another process is
            running it.
    """
    out = Path(out).absolute()
    jobs = _slots(jobs, study.training.threads, tell)
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
            _fill_caches(plan.protocol)
            plan.decided = lambda: _write_choices(opened, out)
        result = StudyResult(out)
        store = opened.first.protocol.store
        executor = LocalExecutor(jobs, study.training.threads, opened.workspaces, store)
        board = Board(opened, out)
        try:
            with show(board) if show is not None else contextlib.nullcontext(tell) as told:
                _walk(opened, Graph(opened.start()), executor, board, result, told)
        finally:
            executor.close()
            result.seconds = time.monotonic() - started
        from preceptor.report.write import write_results

        write_results(opened, out, result.failed)
    return result


def _walk(
    study: StudyPlan,
    graph: Graph,
    executor: LocalExecutor,
    board: Board,
    result: StudyResult,
    tell: Callable[[str], None],
) -> None:
    """Start what is ready, longest first, until nothing is left.

    A step that another process does, of another study in the same store, is asked for again later.
    """
    later: dict[str, float] = {}  # by id: when
    while True:
        more = False  # whether a step was finished here and now, so that others may be ready
        waiting = False  # whether one that another process did is ready
        for step in graph.ready():
            if step.kind == "select":
                assert step.choose is not None
                added = step.choose()
                graph.done.add(step.id)
                graph.add(added)
                domain, name = selected(step)
                where = f"{domain}: " if domain else ""
                reason = study.plans[domain].chosen(step).reason
                tell(f"{where}chosen: {name.replace(':', ' ')}: {reason}")
                more = True
            elif _there(study.folder(step), tell):
                graph.done.add(step.id)
                more = True
            elif later.get(step.id, 0.0) > time.monotonic():
                waiting = True
            elif executor.free:
                graph.running.add(step.id)
                board.started(step)
                executor.start(step)
        if more:
            continue
        if not graph.running and not waiting:
            break
        if not graph.running:
            time.sleep(AGAIN / 4)
            continue
        for event in executor.events(AGAIN if waiting else None):
            if event.kind == "busy":
                step = graph.steps[event.step]
                if step.id not in later:
                    tell(f"{step.title}: another process does it; what it leaves is used")
                later[step.id] = time.monotonic() + AGAIN
                graph.running.discard(step.id)
                board.dropped(step)
            else:
                _note(event, graph, result, board, tell)
    board.count(graph)
    result.failed = {graph.steps[key].title: reason for key, reason in graph.failed.items()}
    result.missing = len(graph.steps) - len(graph.done) - len(graph.failed)


def _note(
    event: Event, graph: Graph, result: StudyResult, board: Board, tell: Callable[[str], None]
) -> None:
    """Enter a worker's report into the graph."""
    step = graph.steps[event.step]
    if event.kind == "line":  # the run's own log keeps an epoch's line
        board.said(step, event.text)
        if not event.text.startswith("epoch "):
            tell(f"{step.title}: {event.text}")
        return
    graph.running.discard(step.id)
    if event.kind in ("done", "there"):
        graph.done.add(step.id)
        line = board.finished(step, graph)
        if event.kind == "done":
            result.computed += 1
            tell(line)
    else:
        graph.fail(step.id, event.text)
        board.failed(step, graph)
        tell(f"FAILED {step.title}: {event.text}")


def _there(folder: Path, tell: Callable[[str], None]) -> bool:
    """Whether a step's result exists and is whole; a damaged one is put aside and redone."""
    if not is_finished(folder):
        return False
    damaged = damaged_files(folder)
    if damaged:
        tell(f"damaged: {folder.name} ({', '.join(damaged)}); it is made again")
        (folder / "run.json").unlink()
    return not damaged


def _slots(jobs: int | None, threads: int, tell: Callable[[str], None]) -> int:
    """Workers such that jobs × threads fits the cores (together they would be slower)."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    most = max(1, cores // threads)
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: at least one is needed")
    if jobs is not None and jobs > most:
        tell(f"{jobs} jobs of {threads} threads do not fit {cores} cores: {most} at a time")
    return min(jobs or most, most)


def _fill_caches(protocol: Protocol) -> None:
    """Decode the images once for every input size, before workers start."""
    study = protocol.study
    for backbone in dict.fromkeys([*study.teachers, *study.students]):
        size = study.training.input_size
        if size is None:
            model = build_model(backbone, protocol.workspace.manifest.classes)
            size = model.spec.input_size
        plain = study.training.model_copy(
            update={"augmentation": type(study.training.augmentation)()}
        )
        for workspace in protocol.workspaces.all():
            workspace.images(study.training, size)
            workspace.images(plain, size)


def _write_choices(study: StudyPlan, out: Path) -> None:
    chosen = {
        domain: {name: choice.as_dict() for name, choice in plan.choices.items()}
        for domain, plan in study.plans.items()
    }
    text = json.dumps(chosen if study.has_domains else chosen[""], indent=2)
    write_atomically(out / "selection.json", text + "\n")


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuse a second process on the same study folder, on this machine or another."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lease(out / "study", wait=0.0))
        except HeldError as error:
            who = holder_of(out / "study")
            where = f" ({who.host}, process {who.pid})" if who else ""
            raise InputError(f"{out}: another process is running this study{where}") from error
        yield


def reopen(folder: str | Path) -> StudyPlan:
    """The plans of a study folder as far as it has got, to report on it at any time.

    Selections whose runs have finished are made (again); nothing is trained.

    Raises:
        InputError: Not a study folder, or its data has changed.
    """
    folder = Path(folder).absolute()
    file = folder / "study.yaml"
    if not file.is_file():
        raise InputError(f"{folder} is not a study folder: it has no study.yaml")
    study = load_config(file, StudyConfig)
    opened = open_study(study, folder, run=False, report_to=lambda line: None)
    graph = Graph(opened.start())
    grown = True
    while grown:
        grown = False
        for step in graph.ready():
            if step.kind == "select":
                assert step.choose is not None
                graph.add(step.choose())
            elif not is_finished(opened.folder(step)):
                continue
            graph.done.add(step.id)
            grown = True
    return opened


def print_plan(
    study: StudyConfig, out: Path, jobs: int | None, tell: Callable[[str], None]
) -> None:
    """Say what a study would do: both stages, their runs, and the time that they would take.

    Args:
        study: The config.
        out: The study folder; what has finished there is not counted.
        jobs: As in `run_study`.
        tell: Receives the lines.
    """
    jobs = _slots(jobs, study.training.threads, tell)
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
            left = [step for step in steps if not is_finished(opened.folder(step))]
            seconds = estimate_seconds(left, study, workspace.manifest.classes, validation, jobs)
            total += seconds
            tell(f"{name}: {count_kinds(steps)}")
            tell(f"  left: {len(left)} of {len(steps)}; about {as_time(seconds)}")
    tell(f"together about {as_time(total)} with {jobs} job{'s' if jobs != 1 else ''}")
