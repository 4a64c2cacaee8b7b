"""Command `preceptor predict`."""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import Device, MapFiles, Precision

# Bad images that are named on standard error; all are in the output.
_NAMED = 20


def predict(
    model: Annotated[Path, typer.Argument(help="Model folder, such as best, or ONNX file.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Image files or URLs, folders, patterns in quotes, manifests (CSV or Parquet), or "
            "- for a list of paths on standard input, one per line.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output table: .csv, .parquet or .jsonl.", show_default="CSV on standard output"
        ),
    ] = None,
    maps: Annotated[
        MapFiles | None,
        typer.Option(
            help="Maps to write: overlay (over the image), png (grayscale, size of the image) or "
            "store (map store).",
            show_default=False,
        ),
    ] = None,
    maps_to: Annotated[
        Path | None,
        typer.Option(help="Folder of the maps.", show_default="beside the output, NAME-maps"),
    ] = None,
    map_of: Annotated[
        str | None, typer.Option(help="Class of the maps.", show_default="the positive class")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Threshold of the decision: a rule (eer, fdr5%, bpcer1%) or a number.",
            show_default="that of the export, else eer",
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Device of the model.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Precision; the thresholds were fixed in 32-true.")
    ] = "32-true",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of images per forward pass.", show_default="chosen by a probe"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of threads that decode images.", show_default="one per core"
        ),
    ] = None,
) -> None:
    """Predict images with a trained model.

    The table has the decision, the score and all probabilities of each image, in the order of the
    inputs. Images that cannot be read have the reason in the column error, and the exit code is 1.
    The same command resumes an interrupted one.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.batch_prediction.image_list import LIST, ImageList
        from preceptor.batch_prediction.predict_files import (
            MapOutput,
            predict_files,
            print_predictions,
        )
        from preceptor.batch_prediction.rows import WRITERS
        from preceptor.batch_prediction.unfinished import is_unfinished
        from preceptor.cli.output_files import check_suffix, check_target
        from preceptor.errors import InputError, PreceptorError, one_line, without_secrets
        from preceptor.predictor.load import files_digest, load
        from preceptor.runtime.progress import progress

    output = None
    if maps_to is not None and maps is None:
        raise InputError(f"--maps-to {maps_to}: there are no maps; add --maps")
    if out is None:
        if maps is not None:
            raise InputError("maps need an output; add --out FILE")
    else:
        check_suffix("--out", out, WRITERS)
        folder = maps_to or out.with_name(f"{out.stem}-maps")
        if not is_unfinished(out):
            check_target("--out", out)
            if maps is not None:
                check_target("--maps-to", folder)
        if maps is not None:
            output = MapOutput(maps, folder, map_of)
    if map_of is not None and maps is None:
        raise InputError(f"--map-of {map_of}: there are no maps; add --maps")
    lines = map(os.fsdecode, sys.stdin.buffer) if LIST in inputs else ()
    images = ImageList(inputs, lines, None if output is None else output.folder)
    with bulk_import():
        predictor = load(
            model, threshold=threshold, device=device, precision=precision,
            batch_size=batch_size, workers=workers,
        )  # fmt: skip
    left_out = images.left_out()  # before files are written, perhaps into a folder of the images
    numbers = count(1)

    def report_bad(name: str, reason: str) -> None:
        if next(numbers) <= _NAMED:
            print(f"bad image: {one_line(without_secrets(name))}: {reason}", file=sys.stderr)

    if out is None:
        found = print_predictions(predictor, images, sys.stdout, report_bad=report_bad)
    else:
        with progress() as bar:
            task = bar.add_task("predicting", total=images.count(), note="")
            found = predict_files(
                predictor, images, out, model=files_digest(model),
                settings=[threshold, device, precision, batch_size], maps=output,
                advance=lambda done: bar.advance(task, done), report_bad=report_bad,
            )  # fmt: skip
        decisions = ", ".join(
            f"{name} {found.decisions[name]:,}" for name in predictor.info.classes
        )
        print(f"wrote {out}: {found.decisions.total() + found.bad:,} images ({decisions})")
        if output is not None:
            print(f"maps {output.folder}")
    if left_out:
        kinds = ", ".join(f"{kind or 'no suffix'} {n:,}" for kind, n in left_out.most_common(5))
        more = ", …" if len(left_out) > 5 else ""
        print(
            f"other files left out: {left_out.total():,} ({kinds}{more})",
            file=sys.stderr if out is None else sys.stdout,
        )
    if found.bad:
        total = found.decisions.total() + found.bad
        where = "" if out is None else f"; the column error of {out} has the reasons"
        raise PreceptorError(f"{found.bad:,} of {total:,} images could not be read{where}")
