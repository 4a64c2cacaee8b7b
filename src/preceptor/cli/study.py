"""Commands of studies: `study` (`study FILE` is `study run FILE`), runs, report and demo."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli.options import (
    CONFIG_FORMATS,
    AddressOption,
    Commands,
    EngineOption,
    HangTimeoutOption,
    JobsOption,
    ManifestPath,
    RunByDefault,
    RunsPerGpuOption,
    check_target,
)
from preceptor.errors import InputError
from preceptor.utils.process import RUN_THREADS, bulk_import, checked_jobs

if TYPE_CHECKING:
    from preceptor.driver import StudyResult
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
    track: list[str] | None = None,
    track_uri: str | None = None,
) -> None:
    """Run a study.

    The same command resumes an interrupted study.

    Args:
        out: Study folder.
        track: Tracker: tensorboard or mlflow. Repeatable.
        track_uri: URI of the MLflow server (default: a database in the study folder).
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
        track=track or (),
        track_uri=track_uri,
        tell=partial(print, flush=True),
        show=partial(live, console=console) if console.is_terminal else None,
    )
    _finish(result)


@study.command()
def init(
    manifest: ManifestPath,
    to: Path = Path("study.yaml"),
    backbone: str = "resnet50",
    weights: str = "hub",
    size: int = 224,
    positive: str | None = None,
) -> None:
    """Write a commented study file.

    The file includes a time estimate measured on this machine.

    Args:
        to: Output file.
        backbone: Backbone of Teacher and Student.
        weights: Initial weights: hub, none or a .safetensors file.
        size: Side of the model's input, in pixels.
        positive: Positive class (default: of two classes the only one of the training images that
            has maps, else the rarer one; of more classes none).
    """
    with bulk_import():
        from preceptor.config.files import parse_config, read_yaml
        from preceptor.data.manifest import Manifest
        from preceptor.data.workspace import Workspace
        from preceptor.execution.local import jobs_at_first
        from preceptor.models.networks import weights_file
        from preceptor.study.checks import estimate_seconds
        from preceptor.study.config import RECOMMENDED, StudyConfig
        from preceptor.study.plan import Plan, outline
        from preceptor.study.protocol import Protocol, plain_run
        from preceptor.study.workspaces import Workspaces
        from preceptor.training.prepare import build_for
        from preceptor.utils.results import write_atomically
        from preceptor.utils.text import as_time

    check_target("--to", to, formats=CONFIG_FORMATS)
    table = Manifest.read(manifest, verify=False)
    classes, training = table.classes, table.table[table.train_mask]
    annotated = table.annotated_mask[table.train_mask]
    marked = sorted(set(training["label"][annotated & table.map_mask[table.train_mask]]))
    chosen = positive
    if positive is None and len(classes) == 2:
        rarer = str(training["label"].value_counts().index[-1])
        chosen = marked[0] if len(marked) == 1 else rarer
    if chosen is not None and chosen not in classes:
        raise InputError(f"--positive {chosen!r} is not among the classes {classes}")
    if weights not in ("hub", "none"):  # paths in a config are relative to its file
        weights_file(weights)  # raises if it is none
        weights = os.path.relpath(weights, to.parent)
    ceiling, others = bool(annotated.all()), [name for name in classes if name != chosen]
    positive_line = (
        f"positive: {_quoted(chosen)}            # class whose probability is the score; other "
        f"classes: {', '.join(others)}"
        if chosen is not None
        else f"# positive: CLASS          # without it, the mean one-vs-rest AUC of "
        f"{', '.join(classes)};\n"
        "                           # with it, the AUC of this class, and a threshold on its score"
    )
    # Permuted human maps of a part of the images would guide this part alone.
    controls = [name for name in RECOMMENDED["controls"] if ceiling or name != "shuffled_human"]
    values = {
        "manifest_name": manifest.name,
        "images": len(table),
        "training": len(training),
        "annotated": annotated.sum(),
        "file": to.name,
        "out": "study" if to.stem == "study" else f"{to.stem}-study",
        "manifest": _quoted(os.path.relpath(manifest, to.parent)),
        "positive_line": positive_line,
        "marked": _quoted(chosen or min(marked or classes)),
        "ceiling": str(ceiling).lower(),
        "controls_line": f"{'# ' * ceiling}controls: [{', '.join(controls)}]"
        + "   # without shuffled_human: some images have no map" * (not ceiling),
        "mapper": str(bool(marked) and (chosen is None or chosen in marked)).lower(),
        "primary": _quoted(table.eval_splits("test")[0]),
        "backbone": _quoted(backbone),
        "weights": _quoted(weights),
        "size": size,
        "threads": RUN_THREADS,
        "jobs": "…",
        "time": "…",
    }
    settings = parse_config(read_yaml(_TEMPLATE.format(**values))[0], StudyConfig, base=to.parent)
    jobs = jobs_at_first("auto", settings.training.threads)
    build_for(plain_run(settings, backbone), classes, load_weights=False).guidable_grid()
    workspace = Workspace(table)  # default cache folder, since there is no study folder yet
    path = settings.manifest_of(settings.seed_list[0])
    manifests = dict.fromkeys(settings.seed_list, path)
    workspaces = Workspaces(manifests, {path: workspace.cache_dir}, {path: workspace})
    first, later = outline(Plan(Protocol(settings, workspaces, Path("store"))))
    validation = len(workspace.split_rows("val"))
    time = as_time(estimate_seconds([*first, *later], settings, classes, validation, jobs))
    write_atomically(to, _TEMPLATE.format(**values | {"time": time, "jobs": jobs}))
    print(f"wrote {to}; estimated time on this machine: {time}")
    if positive is None:
        named = chosen or "none, the AUC is the mean one-vs-rest AUC"
        print(f"positive class: {named} (choose another with --positive)")


_TEMPLATE = """\
# Study of {manifest_name}: {images:,} images, {training:,} of them for training, of which
# {annotated:,} are annotated. Estimated time on this machine: {time} with {jobs} job(s).
# Run it with:  preceptor study {file} --out {out}

manifest: {manifest}
{positive_line}
primary: {primary}            # evaluation set of the hypothesis tests

teachers: [{backbone}]     # backbones of the Teachers
students: [{backbone}]     # backbones of Students and baselines; the paper's: densenet121,
                           # resnet50, legacy_xception, inception_v3
weights: {weights}              # hub (pretrained, needs internet), none, or a .safetensors file
seeds: 3                   # with 3 seeds, p cannot fall below 0.25

# The recommended settings of the method. Teachers: classifiers, α 0.1 or without guidance, and
# mappers, which are trained on the maps alone. All other guided models: α 0.5 and 0.1 (smaller =
# stronger guidance). Validation selects among Teachers, α and read-outs. Controls: shuffled,
# centre, pca, shuffled_human, mixed. Settings that are given here replace them.
recipe: recommended
mapper: {mapper}               # a Teacher that learns the maps alone
# alphas: [0.9, 0.5, 0.1]
# teacher_alphas: [0.5, 0.1]
# annotated: 200           # use only this number (or fraction) of the annotated images
ceiling: {ceiling}              # false, unless all training images are annotated
{controls_line}
saliency: [cam]            # saliency methods: cam (CAM or Grad-CAM), rise (uses scores only)
# guide_classes: [{marked}]   # classes with guidance
# budget: [25, 50, 100]    # annotation budget: three or four more trainings per number and seed
threshold: eer             # rule of the decision threshold on validation: eer, or fdr=0.01
terms: generic             # names of the error rates: pad (attacks), medical, generic

training:
  # recipe: cyborg         # or paper: the published settings, 50 epochs at 224 or 299 px
  input_size: {size}
  batch_size: 20
  epochs: 20
  optimizer: sgd
  lr: 0.005
  schedule: cosine
  checkpoint: best_auc
  precision: 32-true       # or bf16-mixed, on a GPU
  threads: {threads}               # of one run; part of the run's id
  augmentation: {{flip: true, quarter_turns: false, crop_area: 1.0, color: 0.0}}
"""


def _quoted(word: str) -> str:
    """Word or path as YAML, quoted if necessary."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", word, re.ASCII)
    if plain and word.lower() not in {"yes", "no", "on", "off", "true", "false", "null"}:
        return word
    return json.dumps(word, ensure_ascii=False)


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
        from preceptor.utils.text import as_time, gibibytes

    threads = settings.training.threads
    jobs = checked_jobs(jobs, threads, print) or jobs_at_first("auto", threads)
    names = (
        "stage 1 (baselines, ceiling, Teachers, probe Students)",
        "stage 2 (Students, controls, tests)",
    )
    total, weights, caches = 0.0, 0, 0
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
                print(f"  left: {len(left)} of {len(work)}; about {as_time(seconds)}")
    print(f"disk: about {gibibytes(weights)} of models, {gibibytes(caches)} of image caches")
    print(f"together about {as_time(total)} with {jobs} job{'s' if jobs != 1 else ''}")


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

    It has no weights, maps and images. `preceptor report` makes the tables from it again.

    Args:
        folder: Study folder.
        to: New folder.
    """
    with bulk_import():
        from preceptor.results.domain import archive_study
        from preceptor.study_folder import reopen

    print(f"{archive_study(reopen(folder), folder, to)} runs in {to}")


def runs(folder: Path) -> None:
    """List the trainings of a study or a store.

    The table has the role, state, epoch and validation AUC of each training. In a pipe, each
    training is one line.

    Args:
        folder: Study folder or store.
    """
    from preceptor.cli.output import list_runs, print_runs

    print_runs(list_runs(folder))


def report(folder: Path, partial: Annotated[bool, typer.Option("--partial")] = False) -> None:
    """Write the report of a study again.

    The report is written from the steps that have finished so far. Of an archive, the tables are
    written again from its scores.

    Args:
        folder: Study folder.
        partial: Replace the tables also if trainings of them are lost or changed.
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
    if not partial and (lost := lost_runs(study, folder)):
        raise InputError(
            f"{folder}: its tables have trainings that new tables would not have: {lost}; restore "
            "runs and data, repeat the study, or replace the tables with --partial"
        )
    write_results(study, folder)
    print(f"report {folder / 'report.html'}")


def _finish(result: StudyResult) -> None:
    """Print the summary of a study and the path of its report; exit with 1 if a step failed."""
    summary = result.folder / "summary.md"
    if summary.is_file():
        print(summary.read_text(encoding="utf-8"))
    print(f"report {result.folder / 'report.html'}")
    if result.failed or result.missing:
        for one in result.failed.values():
            print(f"failed: {one.title}: {one.reason}", file=sys.stderr)
        raise typer.Exit(1)


def _read(file: Path) -> StudyConfig:
    from preceptor.config.files import load_config
    from preceptor.study.config import StudyConfig

    return load_config(file, StudyConfig)


# Chosen on draws 100 and above so that the effect is visible after a few minutes; see "The demo" in
# benchmarks/RESULTS.md. Three seeds with independent draws cannot be significant; the report
# states this. With a stride of 8, inputs of 48 pixels give 6 × 6 maps.
DEMO: dict[str, Any] = {
    "positive": "forged",
    "primary": "test-seen",
    "annotated": 60,
    "annotated_per_seed": True,
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "seeds": 3,
    "alphas": [0.5],
    "teacher_alphas": [0.5],
    "data_driven": False,
    "controls": ["shuffled", "centre"],
    "ceiling": False,
    "training": {
        "input_size": 48,
        "batch_size": 32,
        "steps": 700,
        "epochs": 1,
        "optimizer": "adamw",
        "lr": 0.006,
        "weight_decay": 0.01,
        "schedule": "one_cycle",
        "clip": 1.0,
        "checkpoint": "last",
        "threads": 1,
        "augmentation": {"flip": True, "quarter_turns": True},
    },
}


def demo(
    out: Path = Path("demo-study"),
    jobs: JobsOption = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Run a small study on forged photographs.

    The study has three draws, two controls and no ceiling, and takes a few minutes.

    Args:
        out: Folder of the images and the study.
        seed: Seed of the first draw.
    """
    _finish(run_demo(out, jobs, seed, partial(print, flush=True)))


def run_demo(out: Path, jobs: int | None, first: int, tell: Callable[[str], None]) -> StudyResult:
    """Generate forged photographs, in draws from seed `first` on, and run the demo on them."""
    from preceptor.benchmark.forged import write_draws
    from preceptor.benchmark.forgeries import PRESETS
    from preceptor.config.files import parse_config
    from preceptor.driver import run_study
    from preceptor.study.config import StudyConfig

    if out.is_file():
        raise InputError(f"{out}: it is a file; name a folder")
    seeds = list(range(first, first + DEMO["seeds"]))
    tell(f"generating forged photographs (draws {seeds[0]} to {seeds[-1]})")
    manifest = write_draws(out / "forged_photographs", PRESETS["demo"], seeds)
    values = DEMO | {"manifest": manifest, "seeds": seeds}
    settings = parse_config(values, StudyConfig, source="the demo")
    return run_study(settings, out / f"study-{first}", jobs=jobs, tell=tell)
