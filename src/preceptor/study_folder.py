"""Study folders: open a study to run it, or read one as far as it has got.

`open_study` verifies images and models before anything is run; `read_study` and `reopen` only read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from preceptor.config.files import load_config
from preceptor.data.notes import notes, value_notes
from preceptor.errors import InputError, raise_all
from preceptor.execution.scheduler import Graph
from preceptor.study.checks import check_study
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.protocol import Protocol, plain_run
from preceptor.study.selection import read_choices
from preceptor.study.steps import Select, read_planned_runs, write_planned_runs
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import image_formats
from preceptor.utils.results import strict_json, write_atomically


def open_study(
    study: StudyConfig, out: Path, *, run: bool, report_to: Callable[[str], None]
) -> StudyPlan:
    """Read the manifests, check the study and make its plan.

    If the study will be run, all images not verified by an earlier start are decoded, and image
    caches are filled. `report_to` receives lines of progress.

    Raises:
        InputError: The study is invalid; all problems are listed if possible.
    """
    opened = _workspaces(study, out)
    # Of a study that was checked before, networks are built only where something is left to do.
    resumed = run and _study_before(out) == study
    problems: list[InputError] = []
    for name, own in study.by_domain().items():
        first, *more = own.seed_list
        others = f" and {len(more)} more" if own.draws and more else ""
        report_to(f"reading {own.manifest_of(first)}{others}")
        with _collected(problems, name):
            texts: list[str] = []
            if run:
                runs = [plain_run(own, backbone) for backbone in own.backbone_names]
                opened[name].verify([form for config in runs for form in image_formats(config)])
                texts = [
                    x for one in opened[name].all() for x in notes(one.manifest, one.cache_dir)
                ]
                texts += [] if resumed else value_notes(opened[name].of(first).manifest)
            for note in dict.fromkeys(texts):  # one that applies to several seeds is given once
                report_to(f"note: {note}")
            for note in check_study(
                own, opened[name], networks=not resumed, maps_cached=run and not resumed
            ):
                report_to(f"note: {note}")
    raise_all(problems)
    plans = _plans(study, opened, out)
    if resumed and not _is_done(_plans(study, opened, out)):
        for name, own in study.by_domain().items():
            with _collected(problems, name):
                check_study(own, opened[name])
        raise_all(problems)
    return plans


def read_study(study: StudyConfig, out: Path) -> StudyPlan:
    """Plan of a study that was checked before; InputError if a manifest cannot be read."""
    return _plans(study, _workspaces(study, out), out)


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
        what = "it is not a study folder: it has no study.yaml"
        raise InputError(f"{folder}: {what if folder.is_dir() else 'there is no such folder'}")
    study = load_config(file, StudyConfig)
    opened = read_study(study, folder)
    replay(opened)
    return opened


def _workspaces(study: StudyConfig, out: Path) -> dict[str, Workspaces]:
    """Workspaces of each domain, not opened yet."""
    store = study.store_of(out)
    return {name: Workspaces.of_study(own, store) for name, own in study.by_domain().items()}


def _plans(study: StudyConfig, opened: dict[str, Workspaces], out: Path) -> StudyPlan:
    """Plan of a study on its manifests, with the choices of an earlier start."""
    store = study.store_of(out)
    choices = read_choices(out / "selection.json", list(opened))
    plans = {}
    for name, own in study.by_domain().items():
        protocol = Protocol(own, opened[name], store, domain=name)
        plans[name] = Plan(protocol, remembered=choices.get(name, {}))
    return StudyPlan(study, plans)


def _study_before(out: Path) -> StudyConfig | None:
    """Config with which a study was started in this folder before."""
    try:
        return load_config(out / "study.yaml", StudyConfig)
    except InputError:
        return None


def other_study_note(study: StudyConfig, out: Path) -> str:
    """Note on a study of other data whose folder would be replaced; "" if there is none.

    Data may have been moved, or replaced on purpose, so that this is not refused.
    """
    before = _study_before(out)
    now = {name: own.manifest for name, own in study.by_domain().items()}
    for name, own in before.by_domain().items() if before is not None else ():
        if now.get(name) != own.manifest:
            where = f" (domain {name})" if name else ""
            return (
                f"note: {out} has a study of {own.manifest}{where}, whose study.yaml, tables, "
                "report and best/ are replaced by those of this one; to keep them, interrupt and "
                "name another folder by --out"
            )
    return ""


def replay(study: StudyPlan) -> Graph:
    """Graph of a study with its finished steps: selections are made, nothing is computed."""
    graph = Graph(study.start())
    while (step := graph.take()) is not None:
        if isinstance(step.work, Select):
            graph.add(step.work.choose(), study.is_finished)
            graph.finish(step.id)
        elif study.is_finished(step):
            graph.finish(step.id)
        else:
            graph.fail(step.id, "it has not finished", study.is_finished)
    return graph


def _is_done(study: StudyPlan) -> bool:
    """Whether every step has finished, without verification of checksums."""
    try:
        graph = replay(study)
    except (InputError, OSError, ValueError):  # what is damaged, the scheduler makes again
        return False
    return len(graph.done) == len(graph.steps)


@contextlib.contextmanager
def _collected(problems: list[InputError], domain: str) -> Iterator[None]:
    """Collect an input error of a domain instead of raising it."""
    try:
        yield
    except InputError as error:
        problems.append(InputError(f"domain {domain}: {error}") if domain else error)


def write_progress(study: StudyPlan, out: Path, *, complete: bool = False) -> None:
    """Write the runs known so far, and the choices as `write_choices`; a full disk is ignored.

    Unless all steps have finished (`complete`), a list of an earlier start that has all of these
    runs is kept.
    """
    runs = study.planned_runs()
    listed = {(run.id, run.domain) for run in read_planned_runs(out) or ()}
    with contextlib.suppress(OSError):
        if complete or not {(run.id, run.domain) for run in runs} <= listed:
            write_planned_runs(runs, out)
    write_choices(study, out, complete=complete)


def write_choices(study: StudyPlan, out: Path, *, complete: bool = False) -> None:
    """Write the choices made so far to `selection.json`; a full disk is ignored.

    Unless all steps have finished, remembered choices that were not made again are written, too.
    """
    chosen = {}
    for domain, plan in study.plans.items():
        choices = {} if complete else dict(plan.remembered)
        choices |= {selection.name: choice for selection, choice in plan.choices.items()}
        # In an order that does not depend on the order of execution.
        chosen[domain] = {name: asdict(choices[name]) for name in sorted(choices)}
    text = strict_json(chosen if study.has_domains else chosen[""])
    with contextlib.suppress(OSError):  # a full disk must not stop the running steps
        write_atomically(out / "selection.json", text + "\n")
