"""Command `preceptor evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli.options import CacheDirOption, CacheOption, ManifestPath
from preceptor.cli.output_files import PARQUET_FORMATS, check_target

Field = Literal["pad", "medical", "generic"]


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

    The output has AUC, EER, error rates and other metrics, by evaluation set and source.
    """
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.cli.evaluate_output import print_comparison, print_figures, print_rates
        from preceptor.data.manifest import Manifest
        from preceptor.data.workspace import Workspace
        from preceptor.errors import InputError
        from preceptor.inference.score import check_comparable, score_sets
        from preceptor.metrics.operating_points import known_threshold
        from preceptor.metrics.scores import check_score_file, compare_sets, figures, write_scores
        from preceptor.models.model_folder import load_model

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
