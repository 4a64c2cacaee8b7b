"""Commands of studies: `study` (`study FILE` is `study run FILE`) and report."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from preceptor.cli.options import (
    CONFIG_FORMATS,
    AddressOption,
    Commands,
    EngineOption,
    HangTimeoutOption,
    JobsOption,
    ManifestPath,
    Number,
    RunByDefault,
    RunsPerGpuOption,
    check_target,
)
from preceptor.errors import InputError
from preceptor.utils.process import RUN_THREADS, bulk_import, checked_jobs

if TYPE_CHECKING:
    from preceptor.config.run import RunConfig
    from preceptor.driver import StudyResult
    from preceptor.models.guided_model import GuidedModel
    from preceptor.study.config import StudyConfig


study = Commands(
    cls=RunByDefault,
    help="Run, plan or watch a study. `study FILE` is short for `study run FILE`.",
    no_args_is_help=True,
)
StudyFile = Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="FILE")]


@study.command()
def run(
    file: StudyFile,
    out: Annotated[Path, typer.Option()],
    jobs: JobsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    runs_per_gpu: RunsPerGpuOption = None,
    hang_timeout: HangTimeoutOption = 30.0,
) -> None:
    """Run a study.

    The same command resumes an interrupted study.

    Args:
        out: Study folder.
    """
    settings = _read(file)
    from preceptor.execution.process import import_early

    if engine == "local" and not Path("/dev/nvidia0").exists():  # workers on GPUs are not forked
        import_early(settings.training.threads)
    with bulk_import():
        from rich.console import Console

        from preceptor.cli.output import live
        from preceptor.driver import run_study

    console = Console()
    result = run_study(
        settings,
        out,
        jobs=jobs,
        engine=engine,
        address=address,
        runs_per_gpu=runs_per_gpu,
        hang_timeout=hang_timeout,
        tell=partial(print, flush=True),
        show=partial(live, console=console) if console.is_terminal else None,
    )
    finish(result)


@study.command()
def init(
    manifest: ManifestPath,
    to: Path = Path("study.yaml"),
    hours: Annotated[float, Number(min=0.01)] = 1.0,
    recipe: Literal["recommended", "paper"] = "recommended",
    backbone: Annotated[str | None, typer.Option(show_default="one that fits")] = None,
    positive: str | None = None,
) -> None:
    """Write a commented study file that fits the time you have.

    Times a training step on this machine, and chooses network, size of the input, steps and seeds.

    Args:
        to: Output file.
        hours: Hours that the study may take on this machine.
        recipe: recommended, or paper: the published settings, however long they take.
        backbone: Backbone of Teacher and Student, or a file of its weights, named
            BACKBONE.safetensors. Its lower part is frozen where there is no GPU.
        positive: Positive class (default: asked for on a terminal; else of two classes the only one
            of the training images that has maps, or the rarer one; of more classes none).
    """
    check_target("--to", to, formats=CONFIG_FORMATS)
    print("reading the manifest", flush=True)
    with bulk_import():
        from preceptor.config.files import parse_config, read_yaml
        from preceptor.data.manifest import Manifest
        from preceptor.data.workspace import Workspace
        from preceptor.execution.local import jobs_at_first
        from preceptor.models.networks import hub_problem, weights_file
        from preceptor.report.words import templates
        from preceptor.study.checks import (
            FROZEN,
            PRETRAINED,
            SCRATCH,
            SCRATCH_SIZES,
            SIZES,
            Size,
            coarse_grid,
            estimate_seconds,
            without_frozen,
        )
        from preceptor.study.config import RECOMMENDED, StudyConfig
        from preceptor.study.plan import Plan, outline
        from preceptor.study.protocol import Protocol, plain_run
        from preceptor.study.workspaces import Workspaces
        from preceptor.training.prepare import build_for, step_seconds
        from preceptor.utils.results import write_atomically
        from preceptor.utils.text import duration

    table = Manifest.read(manifest, verify=False)
    classes, training = table.classes, table.table[table.train_mask]
    annotated = table.annotated_mask[table.train_mask]
    marked = sorted(set(training["label"][annotated & table.map_mask[table.train_mask]]))
    chosen, why = positive, "of more than two classes, the AUC is the mean one-vs-rest AUC"
    if positive is None and len(classes) == 2:
        chosen, why = str(training["label"].value_counts().index[-1]), "the rarer class"
        if len(marked) == 1:
            chosen, why = marked[0], "the only class with maps"
        if sys.stdin.isatty():  # the guess is offered with its reason
            ask = f"positive class, {' or '.join(classes)} ({why})"
            chosen, why = typer.prompt(ask, default=chosen), "as answered"
    if chosen is not None and chosen not in classes:
        raise InputError(f"--positive {chosen!r} is not among the classes {classes}")
    if positive is None:
        print(f"positive class: {chosen or 'none'} ({why}; choose another with --positive)")
    sizes = [Size("resnet50", 224, 0, 3)] if recipe == "paper" else list(SIZES)
    weights, file = "hub", Path(backbone or "")
    if file.suffix == ".safetensors":
        backbone, weights = file.stem, os.path.relpath(weights_file(str(file)), to.parent)
    elif problem := hub_problem(backbone or sizes[0].backbone):
        print(
            f"weights: none, since {problem}; random weights need many times the images and steps, "
            f"and their maps agree less with people's; with a file: --backbone {PRETRAINED}"
            ".safetensors"
        )
        weights, sizes = "none", sizes if recipe == "paper" else list(SCRATCH_SIZES)
    if backbone is not None:  # a grid of 3 × 3 cells at least
        sizes = [one._replace(backbone=backbone) for one in sizes if one.input_size >= 96]
    on_gpu = Path("/dev/nvidia0").exists()
    ceiling, jobs = bool(annotated.all()), jobs_at_first("auto", RUN_THREADS)
    values: dict[str, object] = {"file": to, "classes": classes, "jobs": jobs, "recipe": recipe}
    values |= {"positive": chosen, "marked": chosen or min(marked or classes), "ceiling": ceiling}
    values |= {
        "manifest": os.path.relpath(manifest, to.parent),
        "counts": [len(table), len(training), annotated.sum()],
        # Permuted human maps of a part of the images would guide this part alone.
        "controls": [one for one in RECOMMENDED["controls"] if ceiling or one != "shuffled_human"],
        "mapper": recipe != "paper" and bool(marked) and chosen in {None, *marked},
        "primary": table.eval_splits("test")[0],
    }
    (words := templates()).filters["quoted"] = partial(json.dumps, ensure_ascii=False)
    words.filters["shell"] = shlex.quote
    template = words.get_template("study.yaml.j2")
    workspace = Workspace(table)  # default cache folder, since there is no study folder yet
    validation, rates = len(workspace.split_rows("val")), dict[tuple[str, int], list[float]]()

    values["frozen"] = None if weights == "none" or recipe == "paper" or on_gpu else FROZEN

    def content(size: Size, time: str) -> str:
        own = {"scratch": size.backbone == SCRATCH, "size": size, "time": time}
        own["weights"] = weights
        return template.render(values | own) + "\n"

    def model_of(text: str, size: Size) -> tuple[RunConfig, GuidedModel]:
        study = parse_config(read_yaml(text)[0], StudyConfig, base=to.parent)
        run = plain_run(study, size.backbone)
        return run, build_for(run, classes, load_weights=False)

    def estimate(size: Size) -> float:
        file = parse_config(read_yaml(content(size, "…"))[0], StudyConfig, base=to.parent)
        seeds, path = len(file.seed_list), file.manifest_of(0)
        file = file.model_copy(update={"seeds": 1})  # all take the same time
        workspaces = Workspaces({0: path}, {path: workspace.cache_dir}, {path: workspace})
        first, later = outline(Plan(Protocol(file, workspaces, Path("store"))))
        side = min(size.input_size, 96)  # a step on large images takes seconds
        if (form := (size.backbone, side)) not in rates:
            print(f"timing a training step of {size.backbone} at {side} pixels", flush=True)
            run = plain_run(file, size.backbone)
            small = run.training.model_copy(update={"input_size": side})
            run = run.model_copy(update={"training": small})
            build_for(run, classes, load_weights=False).guidable_grid()
            both = [run, without_frozen(run)] if values["frozen"] else [run]
            pixels = small.batch_size * side**2
            rates[form] = [step_seconds(one, classes, jobs) / pixels for one in both]
        each, whole = (rates[form][at] * size.input_size**2 for at in (0, -1))
        if math.isinf(whole):
            return whole
        steps = [*first, *later]
        return seeds * estimate_seconds(steps, file, classes, validation, jobs, (each, whole))

    times: dict[Size, float] = {}
    try:
        model_of(content(sizes[0], "…"), sizes[0])
    except InputError as error:
        if values["frozen"] is None or "frozen" not in str(error):
            raise
        print(f"the whole network is trained: {error}")
        values["frozen"] = None
    for size in sizes:
        if math.isinf(time := estimate(size)):  # a batch does not fit into memory
            continue
        times[size] = time
        if sum(time > 3600 * hours for time in times.values()) == 2:
            break  # enough to show what more time would buy
    if not times:
        raise InputError("a training step does not fit into memory; choose a smaller --backbone")
    fitting = [size for size in times if times[size] <= 3600 * hours]
    best = (fitting or list(times))[-1 if fitting else 0]
    print("     time  network        pixels  steps  seeds")
    for one, time in times.items():
        form = f"{one.backbone:14} {one.input_size:>5} {one.steps or '50 ep.':>6} {one.seeds:>6}"
        print(f"{'>' if one == best else ' '} {duration(time):>7}  {form}")
    if not fitting and recipe != "paper":
        print(f"nothing fits into {hours:g} hours; the smallest study is written")
    written = content(best, duration(times[best]))
    write_atomically(to, written)
    run, model = model_of(written, best)
    seen = run.training.model_copy(update={"cache": "none"})
    for note in coarse_grid(model, model.guidable_grid(), seen, workspace):
        print(f"note: {note}")
    print(f"wrote {to}; estimated time on this machine: {duration(times[best])}")


@study.command()
def plan(
    file: StudyFile,
    out: Annotated[Path | None, typer.Option(show_default="a new study")] = None,
    jobs: JobsOption = None,
) -> None:
    """Print the steps of a study that are left, their estimated time, and the disk space.

    Args:
        out: Study folder; its finished steps are not counted.
    """
    import tempfile

    settings = _read(file)
    with bulk_import():
        from preceptor.execution.local import jobs_at_first
        from preceptor.study.checks import cache_bytes, count_kinds, estimate_seconds, weight_bytes
        from preceptor.study.plan import outline
        from preceptor.study_folder import open_study, replay
        from preceptor.utils.text import duration, gibibytes

    threads = settings.training.threads
    jobs = checked_jobs(jobs, threads, print) or jobs_at_first("auto", threads)
    names = (
        "stage 1 (baselines, ceiling, Teachers, probe Students)",
        "stage 2 (Students, controls, tests)",
    )
    total, weights, caches = 0.0, 0, 0

    def about(seconds: float) -> str:
        unknown = "an unknown time: a batch does not fit into the memory of this machine"
        return f"about {duration(seconds)}" if math.isfinite(seconds) else unknown

    with tempfile.TemporaryDirectory() as nothing:  # without --out, nothing is left behind
        opened = open_study(settings, out or Path(nothing), run=False, report_to=print)
        with contextlib.suppress(InputError, OSError, ValueError):  # damaged results count as none
            replay(opened)
        for domain, part in opened.plans.items():
            if domain:
                print(f"{domain}:")
            workspace = part.protocol.workspace
            caches += cache_bytes(part.study, part.protocol.workspaces.all())
            classes, validation = workspace.manifest.classes, len(workspace.split_rows("val"))
            for name, steps in zip(names, outline(part), strict=True):
                work = [step for step in steps if step.kind != "select"]
                left = [step for step in work if not opened.is_finished(step)]
                seconds = estimate_seconds(left, settings, classes, validation, jobs)
                total += seconds
                weights += weight_bytes(left, classes)
                print(f"{name}: {count_kinds(steps)}")
                print(f"  left: {len(left)} of {len(work)}; {about(seconds)}")
    print(f"disk: about {gibibytes(weights)} of models, {gibibytes(caches)} of caches")
    print(f"together {about(total)} with {jobs} job{'s' if jobs != 1 else ''}")


@study.command()
def status(folder: Path) -> None:
    """Print the progress of a study.

    Args:
        folder: Study folder.
    """
    from rich.console import Console

    from preceptor.cli.output import print_status
    from preceptor.execution.status import read_status

    print_status(*read_status(folder), Console())


@study.command()
def archive(folder: Path, to: Annotated[Path, typer.Option()]) -> None:
    """Write scores, choices and tables of a study to a small folder.

    It has no weights, maps or images. `preceptor report` makes the tables from it again.

    Args:
        folder: Study folder.
        to: New folder.
    """
    with bulk_import():
        from preceptor.results.domain import archive_study
        from preceptor.study_folder import reopen

    print(f"{archive_study(reopen(folder), folder, to)} runs in {to}")


def report(folder: Path) -> None:
    """Write the report of a study again.

    The report is written from the steps that have finished so far. For an archive, the tables
    are written again from its scores.

    Args:
        folder: Study folder.
    """
    with bulk_import():
        from preceptor.report.write import write_results
        from preceptor.results.domain import lost_runs, write_archived_tables
        from preceptor.results.record import is_archive
        from preceptor.study_folder import reopen

    if is_archive(folder):
        print(f"wrote {', '.join(write_archived_tables(folder))} in {folder}")
        return
    study = reopen(folder)
    if lost := lost_runs(study, folder):
        raise InputError(
            f"{folder}: new tables would lack trainings of the present ones: {lost}; restore "
            "runs and data, or repeat the study; for tables without them, remove runs.csv"
        )
    write_results(study, folder)
    print(f"report {folder / 'report.html'}")


def finish(result: StudyResult, summarize: Callable[[Path], str] | None = None) -> None:
    """Print what a study found, how sure, and where to look; exit with 1 if a step failed."""
    summary = json.loads((result.folder / "summary.json").read_text(encoding="utf-8"))
    said = summary["closing"]
    best = f"; best/ has {said['best']}" if said["best"] else ""
    lines = {"Found": said["found"], "How sure": said["sure"]}
    if summarize is not None and not (result.failed or result.missing):
        print(summarize(result.folder))
        lines = {}  # it has said so
    for name, text in (lines | {"Look at": f"{result.folder / 'report.html'}{best}"}).items():
        wrapper = textwrap.TextWrapper(80, break_long_words=False, break_on_hyphens=False)
        wrapper.initial_indent, wrapper.subsequent_indent = f"{name}: ", "  "
        if text:
            print(wrapper.fill(text))
    if result.failed or result.missing:
        blocked = [one for one in result.failed.values() if one.blocked]
        for one in result.failed.values():
            if not one.blocked:
                print(f"failed: {one.title}: {one.reason}", file=sys.stderr)
        if blocked:
            print(f"not started, because they need a failed step: {len(blocked)}", file=sys.stderr)
        raise typer.Exit(1)


def _read(file: Path) -> StudyConfig:
    from preceptor.config.files import load_config
    from preceptor.study.config import StudyConfig

    return load_config(file, StudyConfig)
