"""The command line: one thin command each; torch is imported only inside commands."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Train image models with human guidance about where to look, and test whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Check, split and import tables of images.", no_args_is_help=True)
imports = typer.Typer(help="Read published collections.", no_args_is_help=True)
app.add_typer(data, name="data")
data.add_typer(imports, name="import")

ManifestPath = Annotated[Path, typer.Argument(help="CSV or Parquet table of images.")]
CacheOption = Annotated[
    Path | None, typer.Option("--cache-dir", help="Folder of image caches.", show_default=False)
]

JobsOption = Annotated[
    int | None,
    typer.Option(help="Most at once; otherwise what the machines hold.", show_default=False),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Of --engine ray: a cluster, or auto for this machine's.", show_default=False
    ),
]
PerGpuOption = Annotated[
    int | None,
    typer.Option(
        "--runs-per-gpu", min=1, show_default=False,
        help="How many share a GPU; otherwise by measured memory.",
    ),
]  # fmt: skip
PatienceOption = Annotated[
    float, typer.Option(min=0.01, help="Minutes of silence after which something hangs.")
]


class Method(StrEnum):
    """How a model marks."""

    cam = "cam"
    rise = "rise"


class Cache(StrEnum):
    """Whether decoded images are kept."""

    memmap = "memmap"
    none = "none"


class Engine(StrEnum):
    """Who does the work."""

    local = "local"
    ray = "ray"


class Device(StrEnum):
    """Where a model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Naming(StrEnum):
    """Whose names the error rates go by."""

    pad = "pad"
    medical = "medical"
    generic = "generic"


class State(StrEnum):
    """How far a training is."""

    finished = "finished"
    begun = "begun"
    waiting = "waiting"


# What the system says of a path that was given wrongly; anything else (a full disk) is a failure.
_WRONG_PATH = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM,
    errno.EROFS, errno.ENAMETOOLONG,
}  # fmt: skip


def main() -> None:
    """Run a command: exit code 0, 1 (failed) or 2 (bad input), one clear line for a mistake."""
    with told():
        app(prog_name="preceptor")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Tell what went wrong in one line, and end with its exit code."""
    from preceptor.errors import PreceptorError

    try:
        yield
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _interrupted()
        sys.exit(130)
    except SystemExit as stop:
        if stop.code == 130:  # typer's for an interruption
            _interrupted()
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2 if error.errno in _WRONG_PATH else 1)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        mend = "lower training.input_size or batch_size, or take a machine with more memory"
        print(f"error: out of memory; {mend}", file=sys.stderr)
        sys.exit(1)


def _out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:  # only what uses torch needs to know what torch says
        return isinstance(error, MemoryError)
    from preceptor.runtime.memory import out_of_memory

    return out_of_memory(error)


def _interrupted() -> None:
    print("interrupted; the same command goes on from here", file=sys.stderr)


@app.command()
def version() -> None:
    """Print the version."""
    from preceptor.version import __version__

    print(__version__)


@data.command("check")
def data_check(manifest: ManifestPath) -> None:
    """Check a manifest and every image and map in it, and print what is in it."""
    from rich.console import Console

    from preceptor.cli.data import print_summary
    from preceptor.data.manifest import Manifest
    from preceptor.data.notes import notes
    from preceptor.runtime.progress import progress

    with progress() as bar:
        task = bar.add_task("reading images", total=None, note="")
        table = Manifest.read(
            manifest, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    print_summary(table, Console())
    for note in notes(table):
        print(f"note: {note}")


@data.command("split")
def data_split(
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option(help="The manifest to write.")],
    train: Annotated[float, typer.Option(help="Share of training.")] = 0.6,
    val: Annotated[float, typer.Option(help="Share of validation.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of testing.")] = 0.2,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            help="SOURCE=SPLIT: send a whole source to val-unseen or test-unseen; a class that it "
            "lacks comes from the other sources."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
) -> None:
    """Make splits: stratified by label and source, whole groups, sources held out."""
    from preceptor.data.complete_sets import missing_class_notes
    from preceptor.data.hold_out import added_classes
    from preceptor.data.manifest import Manifest
    from preceptor.data.split import make_splits
    from preceptor.errors import InputError
    from preceptor.evaluation.split_names import kind_or_none

    _check_target("--to", to)
    held: dict[str, str] = {}
    for item in hold_out or []:
        source, separator, split = item.rpartition("=")
        if not separator:
            raise InputError(f"--hold-out {item!r}: write SOURCE=SPLIT")
        held[source] = split
    shares: dict[str, float] = {"train": train, "val": val, "test": test}
    for kind, share in shares.items():
        if not share and all(kind_or_none(split) != kind for split in held.values()):
            other = "" if kind == "train" else f", or add --hold-out SOURCE={kind}-NAME"
            raise InputError(
                f"--{kind} 0: no image would be in a {kind} split; give it a share{other}"
            )
    table = Manifest.read(manifest, verify=False, need=())
    frame = make_splits(table, {name: share for name, share in shares.items() if share}, seed, held)
    made = Manifest.from_frame(frame, table.root)
    made.write(to)
    counts = frame["split"].value_counts()
    print(f"wrote {to}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    for name, added in added_classes(frame, held).items():
        images = ", ".join(f"{count:,} of {label}" for label, count in added.items())
        print(f"{name} lacked a class: images were moved into it from other sources ({images})")
    for note in missing_class_notes(made):
        print(f"note: {note}")


class Preset(StrEnum):
    """Sizes and strengths of the forged photographs."""

    tiny = "tiny"
    demo = "demo"
    full = "full"


@data.command("forged")
def data_forged(
    to: Annotated[Path, typer.Option(help="The folder to make.")],
    preset: Annotated[Preset, typer.Option(help="How many crops, how strongly forged.")],
    seeds: Annotated[int, typer.Option(min=1, help="Draws: 0, 1, …")] = 1,
    first: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
) -> None:
    """Draw forged photographs, the built-in benchmark; a manifest a seed."""
    from preceptor.benchmark.forged import PRESETS, write_draws

    pattern = write_draws(to, PRESETS[preset.value], range(first, first + seeds))
    print(f"wrote {seeds} draw{'s' if seeds > 1 else ''}: {pattern}")


@imports.command("und")
def import_und(
    train: Annotated[Path, typer.Option(help="Headerless split,class,path CSV of training.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    heatmaps: Annotated[Path, typer.Option(help="Folder of heat maps with the same file names.")],
    to: Annotated[Path, typer.Option(help="The manifest to write.")],
    test: Annotated[list[Path] | None, typer.Option(help="CSV of a test set; repeat.")] = None,
) -> None:
    """Read the UND CYBORG release as it is and write a manifest."""
    from preceptor.data.importers.und import read_und

    _check_target("--to", to)
    table = read_und(train, test or [], images, heatmaps)
    table.write(to)
    print(f"wrote {to}: {len(table):,} images")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML of one run.")],
    out: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    cache_dir: CacheOption = None,
) -> None:
    """Train one model; the same command goes on where an interrupted one stopped."""
    from preceptor.config.run import RunConfig
    from preceptor.config.yaml_file import load_config

    settings = load_config(config, RunConfig)
    from preceptor.data.workspace import Workspace
    from preceptor.training.run import train as train_run

    workspace = Workspace.open(settings.manifest, cache_dir, verify=True)
    result = train_run(settings, out, workspace=workspace, tell=print)
    print(f"run {result.folder}")


@app.command()
def annotate(
    model: Annotated[Path, typer.Argument(help="Model folder of the Teacher.")],
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option(help="Folder of the map store.")],
    method: Annotated[Method, typer.Option(help="The model's own map, or RISE.")] = Method.cam,
    split: Annotated[str, typer.Option(help="train, all, or a split's name.")] = "train",
    max_masks: Annotated[
        int, typer.Option(min=2, max=10_000_000, help="Of RISE: most forwards an image.")
    ] = 8000,
    tolerance: Annotated[
        float, typer.Option(min=0, max=0.99, help="Of RISE: error at which an image is done.")
    ] = 0.05,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each at once.")] = 1,
    device: Device = Device.auto,
    engine: Annotated[
        Engine, typer.Option(help="Processes here, or a Ray cluster.")
    ] = Engine.local,
    jobs: JobsOption = None,
    runs_per_gpu: PerGpuOption = None,
    address: AddressOption = None,
    patience: PatienceOption = 30.0,
    cache_dir: CacheOption = None,
    cache: Cache = Cache.memmap,
) -> None:
    """Mark images by a model's own saliency; the same command goes on where one stopped."""
    from preceptor.config.run import RiseSettings
    from preceptor.execution.make_maps import annotate_in_shards
    from preceptor.inference.annotate import marking_record

    store = annotate_in_shards(
        model, manifest, out, method.value, splits=split, cache=cache.value, cache_dir=cache_dir,
        rise=RiseSettings(max_masks=max_masks, tolerance=tolerance), threads=threads,
        device=device.value, engine=engine.value, jobs=jobs, runs_per_gpu=runs_per_gpu,
        address=address, patience=patience,
    )  # fmt: skip
    print(
        f"wrote {len(store.paths):,} maps of {store.maps.shape[1]} × {store.maps.shape[2]} to {out}"
    )
    if record := marking_record(store):
        print(
            f"{record['masks'] / len(store.paths):,.0f} forwards an image; {record['unsettled']:,} "
            "of the maps have not settled and will not guide"
        )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifest: ManifestPath,
    against: Annotated[
        Path | None, typer.Option(help="Model folder B: DeLong's test of the AUC on each set.")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Print errors at the model's threshold by this rule: eer, or fdr=x.",
            show_default="eer",
        ),
    ] = None,
    terms: Annotated[Naming, typer.Option(help="Names of the errors.")] = Naming.generic,
    out: Annotated[
        Path | None,
        typer.Option(help="Parquet file for the scores; only a score table is replaced."),
    ] = None,
    cache_dir: CacheOption = None,
    cache: Cache = Cache.memmap,
) -> None:
    """Score the validation and test sets, and print AUC, EER and more by set and source."""
    from preceptor.cli.evaluate import print_comparison, print_figures, print_rates
    from preceptor.data.manifest import Manifest
    from preceptor.data.workspace import Workspace
    from preceptor.errors import InputError
    from preceptor.evaluation.compare import compare_sets
    from preceptor.evaluation.operating_points import known_threshold
    from preceptor.evaluation.scores import check_score_file, figures, write_scores
    from preceptor.inference.score import check_comparable, score_sets
    from preceptor.models.build import load_model

    if out is not None:
        _check_target("--out", out, replace=True)
        check_score_file(out)
    loaded = load_model(model)
    spec = loaded.spec
    rule, fixed = "eer" if threshold is None else threshold, None
    if threshold is not None or rule in spec.thresholds:
        fixed = known_threshold(rule, spec.thresholds, str(model))
    other = None if against is None else load_model(against)
    if other is not None:
        check_comparable(loaded, other, (str(model), str(against)))
    table = Manifest.read(manifest, verify=False, need=(), classes=spec.classes)
    if not table.eval_splits("val") + table.eval_splits("test"):
        raise InputError(f"{manifest}: no row has a val or test split, so there is none to score")
    workspace = Workspace(table, cache_dir)
    scores = score_sets(loaded, workspace, cache.value)
    if out is not None:
        write_scores(scores, out)
    print_figures(figures(scores, spec.classes, spec.positive))
    if spec.positive is not None:
        print_rates(scores, spec.positive, rule, fixed, terms.value)
        if other is not None:
            theirs = score_sets(other, workspace, cache.value)
            compared = compare_sets(scores, theirs, spec.positive)
            print_comparison(compared, (str(model), str(against)))


@app.command(
    context_settings={"allow_extra_args": False},
    help="Run the whole protocol: `study FILE --out DIR`; `study init MANIFEST` writes a FILE; "
    "`study --status DIR` says from another shell how far it is.",
)
def study(
    what: Annotated[
        str | None, typer.Argument(help="A study file, or the word init.", metavar="FILE|init")
    ] = None,
    manifest: Annotated[Path | None, typer.Argument(help="For init: the manifest.")] = None,
    out: Annotated[Path | None, typer.Option(help="The study folder.")] = None,
    jobs: JobsOption = None,
    engine: Annotated[
        Engine, typer.Option(help="Processes here, or a Ray cluster.")
    ] = Engine.local,
    address: AddressOption = None,
    runs_per_gpu: PerGpuOption = None,
    patience: PatienceOption = 30.0,
    track: Annotated[
        list[str] | None, typer.Option(help="tensorboard or mlflow; repeat.", show_default=False)
    ] = None,
    track_uri: Annotated[
        str | None,
        typer.Option(help="MLflow's server; otherwise a file in the study.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its time.")
    ] = False,
    status: Annotated[
        Path | None, typer.Option("--status", help="A study folder: how far is it?")
    ] = None,
    to: Annotated[Path, typer.Option(help="For init: the file to write.")] = Path("study.yaml"),
    backbone: Annotated[str, typer.Option(help="For init: Teacher and Student.")] = "resnet50",
    weights: Annotated[str, typer.Option(help="For init: hub, none or a file.")] = "hub",
    size: Annotated[int, typer.Option(help="For init: input side in pixels.")] = 224,
    positive: Annotated[str | None, typer.Option(help="For init: the positive class.")] = None,
) -> None:
    """Run a study or write a study file."""
    from preceptor.errors import InputError

    if status is not None:
        if what is not None:
            raise InputError(f"study --status looks at a folder alone, and {what} is given too")
        from rich.console import Console

        from preceptor.cli.terminal import tell_status
        from preceptor.execution.status import read_status

        tell_status(*read_status(status), Console())
        return
    if what is None:
        raise InputError("study: name a study file, as in `preceptor study study.yaml --out study`")
    if what == "init":
        from preceptor.cli.study_file import write_study_file

        if manifest is None:
            raise InputError("study init: name the manifest, as in `preceptor study init x.csv`")
        time = write_study_file(
            manifest, to, backbone=backbone, weights=weights, size=size, positive=positive
        )
        print(f"wrote {to}; on this machine the study takes about {time}")
        return
    if manifest is not None:
        raise InputError(f"study {what}: one file is expected, and {manifest} is given too")
    if out is None and not dry_run:
        raise InputError("study: --out names the folder of the study")
    from preceptor.config.yaml_file import load_config
    from preceptor.study.config import StudyConfig

    settings = load_config(Path(what), StudyConfig)
    if dry_run:
        import tempfile

        from preceptor.driver import print_plan

        with tempfile.TemporaryDirectory() as nothing:  # without --out, nothing is left behind
            print_plan(settings, out or Path(nothing), jobs, print)
        return
    from preceptor.execution.process import start_process

    # It imports torch while this process does.
    early = start_process(settings.training.threads) if engine is Engine.local else None
    from preceptor.driver import run_study

    assert out is not None
    from rich.console import Console

    from preceptor.cli.terminal import live

    console = Console()
    show = partial(live, console=console) if console.is_terminal else None
    result = run_study(
        settings, out, jobs=jobs, engine=engine.value, address=address, runs_per_gpu=runs_per_gpu,
        patience=patience, track=track or (), track_uri=track_uri, early=early,
        tell=partial(print, flush=True), show=show,
    )  # fmt: skip
    _finish(result)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="A study folder, or a store.")],
    role: Annotated[str | None, typer.Option(help="As in student, baseline1.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Of the model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the training.")] = None,
    state: Annotated[
        State | None, typer.Option(help="finished, begun or waiting.", show_default=False)
    ] = None,
) -> None:
    """List the trainings of a study or a store: what, how far, how good."""
    from preceptor.cli.runs import list_runs, print_runs

    found = list_runs(folder)
    if role is not None:
        found = [one for one in found if role in one.role.split(" = ")]
    for name, value in (("backbone", backbone), ("seed", seed)):
        if value is not None:
            found = [one for one in found if getattr(one, name) == value]
    if state is not None:
        found = [one for one in found if one.state == state.value]
    print_runs(found)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A study folder.")],
) -> None:
    """Write the report again from what has finished, at any time."""
    from preceptor.driver import reopen
    from preceptor.report.write import write_results

    write_results(reopen(folder), folder)
    print(f"report {folder / 'report.html'}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of images and study.")] = Path("demo-study"),
    jobs: JobsOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The first draw of the images.")] = 0,
) -> None:
    """Run a small study on forged photographs: the whole protocol in a few minutes."""
    from preceptor.cli.demo import run_demo

    _finish(run_demo(out, jobs=jobs, first=seed, tell=partial(print, flush=True)))


def _check_target(option: str, path: Path, *, replace: bool = False) -> None:
    """Refuse a file that cannot be written before anything is computed for it."""
    from preceptor.errors import InputError

    if path.is_dir() or (path.exists() and not replace):
        raise InputError(f"{option} {path} exists already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; make it first")


def _finish(result: object) -> None:
    """Print a study's main tables, its verdict and where its report is; exit 1 if a step failed."""
    from preceptor.driver import StudyResult

    assert isinstance(result, StudyResult)
    summary = result.folder / "summary.md"
    if summary.is_file():
        print(summary.read_text(encoding="utf-8"))
    print(f"report {result.folder / 'report.html'}")
    if result.failed or result.missing:
        for title, reason in result.failed.items():
            print(f"failed: {title}: {reason}", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
