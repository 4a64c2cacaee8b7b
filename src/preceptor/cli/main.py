"""Commands of `preceptor`; torch is imported only inside commands."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.agreement import data_agreement
from preceptor.cli.annotations import imports
from preceptor.cli.export import data_export
from preceptor.cli.label import label
from preceptor.cli.options import (
    AddressOption,
    Cache,
    CacheDirOption,
    Device,
    EngineOption,
    HangTimeoutOption,
    JobsOption,
    MarkKind,
    Method,
    Preset,
    RunsPerGpuOption,
    RunState,
    StampPlace,
)
from preceptor.cli.study import finish, study
from preceptor.evaluation.terms import Field

app = typer.Typer(
    help="Train image classifiers with human guidance on where to look, and test whether it helps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(
    help="Check, split, copy, import and export manifests; compare annotators.",
    no_args_is_help=True,
)
app.add_typer(data, name="data")
app.add_typer(study, name="study")
app.add_typer(label, name="label")
data.add_typer(imports, name="import")
data.command("agreement")(data_agreement)
data.command("export")(data_export)

ManifestPath = Annotated[Path, typer.Argument(help="CSV or Parquet table of images.")]
CacheOption = Annotated[
    Cache,
    typer.Option(help="Cache of decoded images: memmap (memory-mapped file) or none (no cache)."),
]

# Error numbers of an invalid path; all others (a full disk) are failures.
_WRONG_PATH = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM,
    errno.EROFS, errno.ENAMETOOLONG,
}  # fmt: skip


def main() -> None:
    """Entry point: run a command with exit code 0, 1 (failed) or 2 (invalid input)."""
    with reported_errors():
        app(prog_name="preceptor")


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Print an expected error in one line, and exit with its code."""
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
        fix = "lower training.input_size or batch_size, or use a machine with more memory"
        print(f"error: out of memory; {fix}", file=sys.stderr)
        sys.exit(1)


def _out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:  # importing torch takes seconds; without it, no torch errors
        return isinstance(error, MemoryError)
    from preceptor.runtime.memory import out_of_memory

    return out_of_memory(error)


def _interrupted() -> None:
    print("interrupted; repeat the command to resume", file=sys.stderr)


@app.command()
def version() -> None:
    """Print the version."""
    from preceptor.version import __version__

    print(__version__)


@data.command("check")
def data_check(manifest: ManifestPath) -> None:
    """Check a manifest and print a summary.

    All images and maps are decoded; all problems are listed by row.
    """
    from rich.console import Console

    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
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
    to: Annotated[Path, typer.Option(help="Output manifest.")],
    train: Annotated[float, typer.Option(help="Share of the training split.")] = 0.6,
    val: Annotated[float, typer.Option(help="Share of the validation split.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the test split.")] = 0.2,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            help="SOURCE=SPLIT: assign all images of a source to a split such as val-unseen or "
            "test-unseen; images of missing classes are added from other sources. Repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed, 0 or more.")] = 0,
) -> None:
    """Divide a manifest into splits.

    Splits are stratified by label and source, with whole groups and held-out sources.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
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
                f"--{kind} 0: no image would be in a {kind} split; set a share above 0{other}"
            )
    table = Manifest.read(manifest, verify=False, need=())
    frame = make_splits(table, {name: share for name, share in shares.items() if share}, seed, held)
    made = Manifest.from_frame(frame, table.root)
    made.write(to)
    counts = frame["split"].value_counts()
    print(f"wrote {to}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    for name, added in added_classes(frame, held).items():
        images = ", ".join(f"{count:,} of {label}" for label, count in added.items())
        print(f"{name}: images of missing classes were added from other sources ({images})")
    for note in missing_class_notes(made):
        print(f"note: {note}")


@data.command("forged")
def data_forged(
    to: Annotated[Path, typer.Option(help="Output folder.")],
    preset: Annotated[Preset, typer.Option(help="Number of crops and strength of the forgeries.")],
    stamp_place: Annotated[
        StampPlace | None,
        typer.Option(
            help="Place of the stamp: corner, or moving (default: as in the preset).",
            show_default=False,
        ),
    ] = None,
    stamp_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of the forged training crops with the stamp, 0.5 to 1 (default: as in the "
            "preset).",
            show_default=False,
        ),
    ] = None,
    stamp_strength: Annotated[
        float | None,
        typer.Option(
            help="Contrast of the stamp in gray levels, 0 = no stamp (default: as in the preset).",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
) -> None:
    """Generate the built-in benchmark.

    The images are forged crops of photographs, with one manifest per seed.
    """
    from preceptor.benchmark.forged import PRESETS, ForgedSettings, write_draws

    given = {
        "stamp_place": stamp_place, "stamp_rate": stamp_rate, "stamp_strength": stamp_strength,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None}
    settings = PRESETS[preset]
    if changes:
        from preceptor.config.yaml_file import parse_config

        values = settings.model_dump() | changes
        settings = parse_config(values, ForgedSettings, source=f"--preset {preset}")
    pattern = write_draws(to, settings, range(first, first + seeds))
    print(f"wrote {seeds} draw{'s' if seeds > 1 else ''}: {pattern}")


@data.command("plant")
def data_plant(
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option(help="Output folder.")],
    kind: Annotated[
        MarkKind,
        typer.Option(help="Mark: stamp (a caption), border (two lines) or tint (a color cast)."),
    ] = "stamp",
    place: Annotated[
        StampPlace | None,
        typer.Option(
            help="Place of a stamp: moving (beside the human map) or corner (lower right).",
            show_default="moving",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Share of the images of the class with the mark.")
    ] = 1.0,
    label: Annotated[
        str | None,
        typer.Option(help="Class with the mark.", show_default="the only class with human maps"),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Contrast of the mark in gray levels of 255.")
    ] = 32.0,
    seed: Annotated[int, typer.Option(help="Random seed, 0 or more.")] = 0,
) -> None:
    """Copy a data set and plant a shortcut in it.

    Images of one class carry a mark in the splits train and val, and in no other split: a test of
    whether guidance would prevent a model from relying on it.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.cli.data import print_planted
        from preceptor.config.yaml_file import parse_config
        from preceptor.data.manifest import Manifest
        from preceptor.data.plant import PlantSettings, plant
        from preceptor.runtime.progress import progress

    values = {
        "kind": kind, "place": place, "rate": rate, "label": label, "strength": strength,
        "seed": seed,
    }  # fmt: skip
    settings = parse_config(values, PlantSettings, source="data plant")
    table = Manifest.read(manifest, verify=False, need=("train",))
    with progress() as bar:
        task = bar.add_task("writing images", total=None, note="")
        planted = plant(
            table, to, settings,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    print_planted(planted)


@imports.command("und")
def import_und(
    train: Annotated[Path, typer.Option(help="Training CSV without header: split, class, path.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    heatmaps: Annotated[Path, typer.Option(help="Folder of heat maps with the same file names.")],
    to: Annotated[Path, typer.Option(help="Output manifest.")],
    test: Annotated[list[Path] | None, typer.Option(help="CSV of a test set. Repeatable.")] = None,
) -> None:
    """Import the UND CYBORG release, in the form in which it is published."""
    from preceptor.data.importers.und import read_und

    _check_target("--to", to)
    table = read_und(train, test or [], images, heatmaps)
    table.write(to)
    print(f"wrote {to}: {len(table):,} images")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Config of the run (YAML).")],
    out: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    cache_dir: CacheDirOption = None,
) -> None:
    """Train one model.

    The same command resumes an interrupted training.
    """
    from preceptor.config.run import RunConfig
    from preceptor.config.yaml_file import load_config
    from preceptor.errors import InputError

    settings = load_config(config, RunConfig)
    outside = settings.training.augmentation.outside
    if outside != "none" and settings.maps.kind == "none":
        raise InputError(
            f"{config}: training.augmentation.outside is {outside}, which needs maps, and "
            "maps.kind is none; set maps, or remove outside"
        )
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.data.workspace import Workspace
        from preceptor.training.prepare import image_formats
        from preceptor.training.run import train as train_run

    workspace = Workspace.open(
        settings.manifest, cache_dir, verify=True, formats=image_formats(settings)
    )
    result = train_run(settings, out, workspace=workspace, tell=print)
    print(f"run {result.folder}")


@app.command()
def annotate(
    model: Annotated[Path, typer.Argument(help="Model folder of the Teacher.")],
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option(help="Folder of the map store.")],
    method: Annotated[
        Method, typer.Option(help="Maps: cam (CAM or Grad-CAM), rise, or cells (of a mapper).")
    ] = "cam",
    split: Annotated[
        str, typer.Option(help="Images: train, all, or the name of a split.")
    ] = "train",
    max_masks: Annotated[
        int,
        typer.Option(min=2, max=10_000_000, help="Maximum number of RISE masks per image."),
    ] = 8000,
    tolerance: Annotated[
        float, typer.Option(min=0, max=0.99, help="Largest error of an accepted RISE map.")
    ] = 0.05,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each concurrent step.")] = 1,
    device: Annotated[Device, typer.Option(help="Device of the model.")] = "auto",
    engine: EngineOption = "local",
    jobs: JobsOption = None,
    runs_per_gpu: RunsPerGpuOption = None,
    address: AddressOption = None,
    hang_timeout: HangTimeoutOption = 30.0,
    cache_dir: CacheDirOption = None,
    cache: CacheOption = "memmap",
) -> None:
    """Make saliency maps with a Teacher.

    The maps are written as a map store. The same command resumes an interrupted one.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.config.maps import RiseSettings
        from preceptor.execution.executors import ExecutorOptions
        from preceptor.execution.make_maps import annotate_in_shards
        from preceptor.inference.annotate import maps_record

    store = annotate_in_shards(
        model, manifest, out, method, splits=split, cache=cache, cache_dir=cache_dir,
        rise=RiseSettings(max_masks=max_masks, tolerance=tolerance), threads=threads,
        device=device,
        options=ExecutorOptions(engine, jobs, runs_per_gpu, address, hang_timeout),
    )  # fmt: skip
    print(
        f"wrote {len(store.paths):,} maps of {store.maps.shape[1]} × {store.maps.shape[2]} to {out}"
    )
    if record := maps_record(store):
        print(
            f"{record['masks'] / len(store.paths):,.0f} forward passes per image; "
            f"{record['unsettled']:,} maps did not reach the tolerance and will not guide"
        )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifest: ManifestPath,
    against: Annotated[
        Path | None,
        typer.Option(help="Second model folder: compare AUCs by DeLong's test on each set."),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Rule of the decision threshold, fixed on validation: eer, or fdr=x.",
            show_default="eer",
        ),
    ] = None,
    terms: Annotated[Field, typer.Option(help="Names of the error rates.")] = "generic",
    out: Annotated[
        Path | None,
        typer.Option(help="Output Parquet file of the scores; may replace an older score table."),
    ] = None,
    cache_dir: CacheDirOption = None,
    cache: CacheOption = "memmap",
) -> None:
    """Evaluate a model on a manifest.

    Prints AUC, EER, error rates and other metrics by evaluation set and source.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
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
        raise InputError(f"{manifest}: no row has a val or test split; assign some rows to one")
    workspace = Workspace(table, cache_dir)
    scores = score_sets(loaded, workspace, cache)
    if out is not None:
        write_scores(scores, out)
    print_figures(figures(scores, spec.classes, spec.positive), spec.classes)
    if spec.positive is not None:
        print_rates(scores, spec.positive, rule, fixed, terms)
        if other is not None:
            theirs = score_sets(other, workspace, cache)
            compared = compare_sets(scores, theirs, spec.positive)
            print_comparison(compared, (str(model), str(against)))


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Study folder or store.")],
    role: Annotated[
        str | None, typer.Option(help="Only this role, such as student or baseline1.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Only this backbone.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed.")] = None,
    state: Annotated[
        RunState | None, typer.Option(help="Only trainings in this state.", show_default=False)
    ] = None,
) -> None:
    """List the trainings of a study or a store.

    The table has the role, state, epoch and validation AUC of each training.
    """
    from preceptor.cli.runs import list_runs, print_runs

    found = list_runs(folder)
    if role is not None:
        found = [one for one in found if role in one.roles]
    for name, value in (("backbone", backbone), ("seed", seed)):
        if value is not None:
            found = [one for one in found if getattr(one, name) == value]
    if state is not None:
        found = [one for one in found if one.state == state]
    print_runs(found)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Study folder.")],
) -> None:
    """Write the report of a study again.

    The report is written from the steps that have finished so far.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.report.write import write_results
        from preceptor.study_folder import reopen

    write_results(reopen(folder), folder)
    print(f"report {folder / 'report.html'}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the images and the study.")] = Path(
        "demo-study"
    ),
    jobs: JobsOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
) -> None:
    """Run a small study on forged photographs.

    The study runs the whole protocol in a few minutes.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.cli.demo import run_demo

    finish(run_demo(out, jobs=jobs, first=seed, tell=partial(print, flush=True)))


def _check_target(option: str, path: Path, *, replace: bool = False) -> None:
    """Check that an output file can be written, before its content is computed."""
    from preceptor.errors import InputError

    if path.is_dir() or (path.exists() and not replace):
        raise InputError(f"{option} {path} exists already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: folder {path.parent} does not exist; create it first")


if __name__ == "__main__":
    main()
