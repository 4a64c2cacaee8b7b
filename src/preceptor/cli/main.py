"""The command line: one thin command each; torch is imported only inside commands."""

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

from preceptor.cli.options import (
    AddressOption,
    Cache,
    CacheDirOption,
    Device,
    EngineOption,
    HangTimeoutOption,
    JobsOption,
    Method,
    Preset,
    RunsPerGpuOption,
    RunState,
)
from preceptor.cli.study import finish, study
from preceptor.evaluation.terms import Field

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
app.add_typer(study, name="study")
data.add_typer(imports, name="import")

ManifestPath = Annotated[Path, typer.Argument(help="CSV or Parquet table of images.")]
CacheOption = Annotated[
    Cache, typer.Option(help="Decoded images: memory-mapped file, or none (decoded each time).")
]

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
    train: Annotated[float, typer.Option(help="Share of the training split.")] = 0.6,
    val: Annotated[float, typer.Option(help="Share of the validation split.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the test split.")] = 0.2,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            help="SOURCE=SPLIT: send a whole source to val-unseen or test-unseen; a class that it "
            "lacks comes from the other sources."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw, 0 or more.")] = 0,
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


@data.command("forged")
def data_forged(
    to: Annotated[Path, typer.Option(help="The folder to make.")],
    preset: Annotated[Preset, typer.Option(help="Number of crops and strength of the forgeries.")],
    seeds: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
) -> None:
    """Draw forged photographs, the built-in benchmark; a manifest a seed."""
    from preceptor.benchmark.forged import PRESETS, write_draws

    pattern = write_draws(to, PRESETS[preset], range(first, first + seeds))
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
    cache_dir: CacheDirOption = None,
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
    method: Annotated[Method, typer.Option(help="The model's own map, or RISE.")] = "cam",
    split: Annotated[str, typer.Option(help="train, all, or a split's name.")] = "train",
    max_masks: Annotated[
        int,
        typer.Option(min=2, max=10_000_000, help="RISE: maximum number of masks per image."),
    ] = 8000,
    tolerance: Annotated[
        float, typer.Option(min=0, max=0.99, help="RISE: error below which a map is accepted.")
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
    """Mark images by a model's own saliency; the same command goes on where one stopped."""
    from preceptor.config.run import RiseSettings
    from preceptor.execution.make_maps import annotate_in_shards
    from preceptor.inference.annotate import marking_record

    store = annotate_in_shards(
        model, manifest, out, method, splits=split, cache=cache, cache_dir=cache_dir,
        rise=RiseSettings(max_masks=max_masks, tolerance=tolerance), threads=threads,
        device=device, engine=engine, jobs=jobs, runs_per_gpu=runs_per_gpu,
        address=address, hang_timeout=hang_timeout,
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
    terms: Annotated[Field, typer.Option(help="Names of the error rates.")] = "generic",
    out: Annotated[
        Path | None,
        typer.Option(help="Parquet file for the scores; only a score table is replaced."),
    ] = None,
    cache_dir: CacheDirOption = None,
    cache: CacheOption = "memmap",
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
    folder: Annotated[Path, typer.Argument(help="A study folder, or a store.")],
    role: Annotated[str | None, typer.Option(help="Role, such as student or baseline1.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone of the model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training.")] = None,
    state: Annotated[
        RunState | None, typer.Option(help="State of the training.", show_default=False)
    ] = None,
) -> None:
    """List the trainings of a study or a store: what, how far, how good."""
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

    finish(run_demo(out, jobs=jobs, first=seed, tell=partial(print, flush=True)))


def _check_target(option: str, path: Path, *, replace: bool = False) -> None:
    """Refuse a file that cannot be written before anything is computed for it."""
    from preceptor.errors import InputError

    if path.is_dir() or (path.exists() and not replace):
        raise InputError(f"{option} {path} exists already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; make it first")


if __name__ == "__main__":
    main()
