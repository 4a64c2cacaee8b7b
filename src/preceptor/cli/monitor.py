"""Command `preceptor monitor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import finite

DRIFT = 3
"""Exit code with drift: neither that of a failure nor that of invalid input."""


def monitor(
    log: Annotated[
        Path, typer.Argument(help="Table of preceptor predict: .csv, .parquet or .jsonl.")
    ],
    reference: Annotated[
        Path, typer.Option(help="Calibrated model folder with which the table was made.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Output page; may replace an older one.", show_default="LOG.html"),
    ] = None,
    least: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.5,
            help="Smallest difference of an AUC from 0.5 that counts as drift.",
            callback=finite,
        ),
    ] = 0.05,
) -> None:
    """Compare predictions with those of the validation images.

    A page on the drift of scores, distances, maps and features is written. The exit code is 3 if
    there is drift, and 1 or 2 after an error.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.cli.output_files import PAGE_FORMATS, check_target
        from preceptor.errors import InputError
        from preceptor.monitor.drift import compare
        from preceptor.monitor.page import headline, monitor_page, sentences_of
        from preceptor.monitor.prediction_log import check_log, read_log
        from preceptor.predictor.load import load
        from preceptor.runtime.result_folder import write_atomically

    check_log(log)
    page = out or log.with_suffix(".html")
    check_target("--out", page, replace=True, formats=PAGE_FORMATS)
    predictor = load(reference, device="cpu")
    info, known = predictor.info, predictor.reference
    if known is None:
        raise InputError(
            f"{reference}: the model has no reference; make one with preceptor calibrate, and "
            "predict with it"
        )
    found_log = read_log(log, info.classes)
    found = compare(found_log, known, info.positive_index, least)
    write_atomically(page, monitor_page(log.name, found_log, found, info, known))
    print(headline(found))
    for sentence in sentences_of(found):
        print(sentence)
    print(f"wrote {page}")
    if found.found:
        raise typer.Exit(DRIFT)
