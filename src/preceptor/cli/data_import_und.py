"""Command `preceptor data import und`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.output_files import MANIFEST_FORMATS, check_target


def import_und(
    train: Annotated[Path, typer.Option(help="Training CSV without header: split, class, path.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    heatmaps: Annotated[Path, typer.Option(help="Folder of heat maps with the same file names.")],
    to: Annotated[Path, typer.Option(help="Output manifest, .csv or .parquet.")],
    test: Annotated[list[Path] | None, typer.Option(help="CSV of a test set. Repeatable.")] = None,
    join: Annotated[
        str | None,
        typer.Option(
            help="Name of one test set of all test CSVs, each of which is a source, such as "
            "test-unseen (default: a test set for each CSV).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Import the UND CYBORG release in its published form."""
    from preceptor.data.importers.und import read_und

    check_target("--to", to, formats=MANIFEST_FORMATS)
    table = read_und(train, test or [], images, heatmaps, join=join)
    table.write(to)
    print(f"wrote {to}: {len(table):,} images")
