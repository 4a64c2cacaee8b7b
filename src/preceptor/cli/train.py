"""Commands of one model or of finished trainings: train, annotate, evaluate, runs, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli.options import (
    PARQUET_FORMATS,
    AddressOption,
    CacheDirOption,
    CacheOption,
    DeviceOption,
    EngineOption,
    HangTimeoutOption,
    JobsOption,
    ManifestPath,
    Number,
    RunsPerGpuOption,
    RunState,
    check_target,
)
from preceptor.errors import InputError
from preceptor.utils.plugins import check_model_folder
from preceptor.utils.process import RUN_THREADS, bulk_import


def train(config: Path, out: Path = Path("runs"), cache_dir: CacheDirOption = None) -> None:
    """Train one model.

    The same command resumes an interrupted training.

    Args:
        config: Config of the run (YAML).
        out: Folder for run folders.
    """
    from preceptor.config.files import load_config
    from preceptor.config.run import RunConfig

    settings = load_config(config, RunConfig)
    outside = settings.training.augmentation.outside
    if outside != "none" and settings.maps.kind == "none":
        raise InputError(
            f"{config}: training.augmentation.outside is {outside}, which needs maps, and "
            "maps.kind is none; set maps, or remove outside"
        )
    with bulk_import():
        from preceptor.data.workspace import Workspace
        from preceptor.training.prepare import image_formats
        from preceptor.training.run import train as train_run
        from preceptor.utils.memory import keep_freed_memory

    keep_freed_memory()
    workspace = Workspace.open(
        settings.manifest, cache_dir, verify=True, formats=image_formats(settings)
    )
    result = train_run(settings, out, workspace=workspace, tell=print)
    print(f"run {result.folder}")


def _known_method(name: str) -> str:
    from preceptor.config.maps import check_method

    try:
        check_method(name)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def annotate(
    model: Path,
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option()],
    method: Annotated[str, typer.Option(callback=_known_method)] = "cam",
    split: str = "train",
    max_masks: Annotated[int, typer.Option(min=2, max=10_000_000)] = 8000,
    tolerance: Annotated[float, Number(min=0, max=0.99)] = 0.05,
    threads: Annotated[int, typer.Option(min=1)] = RUN_THREADS,
    device: DeviceOption = "auto",
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

    Args:
        model: Model folder of the Teacher.
        out: Folder of the map store.
        method: Method: cam (CAM or Grad-CAM), rise, cells (of a mapper), or a plugin's name.
        split: Images: train, all, or the name of a split.
        max_masks: Maximum number of RISE masks per image.
        tolerance: Largest error of a RISE map that may guide.
        threads: CPU threads of each concurrent step.
    """
    check_model_folder(model)
    with bulk_import():
        from preceptor.config.maps import RiseSettings
        from preceptor.execution.local import ExecutorOptions
        from preceptor.execution.make_maps import annotate_in_shards
        from preceptor.inference.annotate import maps_record

    store = annotate_in_shards(
        model,
        manifest,
        out,
        method,
        splits=split,
        cache=cache,
        cache_dir=cache_dir,
        rise=RiseSettings(max_masks=max_masks, tolerance=tolerance),
        threads=threads,
        device=device,
        options=ExecutorOptions(engine, jobs, runs_per_gpu, address, hang_timeout),
    )
    rows, columns = store.maps.shape[1:3]
    print(f"wrote {len(store.paths):,} maps of {rows} × {columns} to {out}")
    if record := maps_record(store):
        print(
            f"{record['masks'] / len(store.paths):,.0f} forward passes per image; "
            f"{record['unsettled']:,} maps did not reach the tolerance and will not guide"
        )


def evaluate(
    model: Path,
    manifest: ManifestPath,
    against: Path | None = None,
    threshold: Annotated[str | None, typer.Option(show_default="eer")] = None,
    terms: Literal["pad", "medical", "generic"] = "generic",
    out: Path | None = None,
    cache_dir: CacheDirOption = None,
    cache: CacheOption = "memmap",
) -> None:
    """Evaluate a model on a manifest.

    The output has AUC, EER, error rates and other metrics, by evaluation set and source.

    Args:
        model: Model folder.
        against: Second model folder: compare AUCs by DeLong's test on each set.
        threshold: Rule of the decision threshold, fixed on validation: eer, or fdr=x.
        terms: Names of the error rates.
        out: Output Parquet file of the scores; may replace an older score table.
    """
    with bulk_import():
        from preceptor.cli.output import print_comparison, print_figures, print_rates
        from preceptor.data.manifest import Manifest
        from preceptor.data.workspace import Workspace
        from preceptor.inference.predict import check_comparable, score_sets
        from preceptor.metrics.operating_points import known_threshold
        from preceptor.metrics.scores import check_score_file, compare_sets, figures, write_scores
        from preceptor.models.build import load_model

    if out is not None:
        check_target("--out", out, replace=True, formats=PARQUET_FORMATS)
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
        print_rates(scores, spec.classes, spec.positive, rule, fixed, terms)
        if other is not None:
            theirs = score_sets(other, workspace, cache)
            compared = compare_sets(scores, theirs, spec.classes, spec.positive)
            print_comparison(compared, (str(model), str(against)))


def runs(
    folder: Path,
    role: str | None = None,
    backbone: str | None = None,
    seed: int | None = None,
    state: RunState | None = None,
) -> None:
    """List the trainings of a study or a store.

    The table has the role, state, epoch and validation AUC of each training.

    Args:
        folder: Study folder or store.
        role: Only this role, such as student or baseline1.
        backbone: Only this backbone.
        seed: Only this seed.
        state: Only trainings in this state.
    """
    from preceptor.cli.output import list_runs, print_runs

    found = list_runs(folder)
    if role is not None:
        if not any(one.roles for one in found):
            raise InputError(f"{folder}: a store has no roles; name a study folder")
        found = [one for one in found if role in one.roles]
    for name, value in (("backbone", backbone), ("seed", seed), ("state", state)):
        found = [one for one in found if value is None or getattr(one, name) == value]
    print_runs(found)


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
