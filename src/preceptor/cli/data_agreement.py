"""Command `preceptor data agreement`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def data_agreement(
    folder: Annotated[
        Path, typer.Argument(help="Folder written by data import: manifest.csv, annotators/NAME/….")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Output folder of the page and its tables (default: agreement in FOLDER).",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, max=500, help="Number of images with pictures.")
    ] = 24,
) -> None:
    """Compare annotators of the same images.

    A page and CSV tables are written: Dice, IoU and correlation of each pair, each annotator
    against the others, displaced marks, and the images with the least agreement.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.data.annotators import agreement_of, read_annotators
        from preceptor.report.agreement_page import PAGE, write_agreement
    from preceptor.runtime.formatting import number
    from preceptor.runtime.progress import progress

    maps = read_annotators(folder)
    with progress() as bar:
        task = bar.add_task("comparing maps", total=None, note="")
        agreement, cell = agreement_of(
            maps, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    target = to or folder / "agreement"
    found = write_agreement(maps, agreement, cell, target, images)
    for pair in agreement.pairs:
        print(
            f"{pair.a} – {pair.b}: {pair.images:,} images, Dice {number(pair.dice)}, IoU "
            f"{number(pair.iou)}, correlation {number(pair.correlation)}"
        )
    for sentence in found:
        print(sentence)
    print(f"wrote {target / PAGE}")
