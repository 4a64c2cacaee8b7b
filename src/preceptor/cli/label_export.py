"""The commands `preceptor label export | status`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.data_export import Format


def label_export(
    database: Annotated[Path, typer.Argument(help="Database of preceptor label.")],
    to: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Additional format, of another tool, in a folder of its name.",
            show_default=False,
        ),
    ] = None,
    merge: Annotated[
        str,
        typer.Option(help="Map of several people: mean, majority, staple, any, or one's name."),
    ] = "mean",
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help="Class of marks. Repeatable (default: all).", show_default=False
        ),
    ] = None,
) -> None:
    """Export the marks of a database.

    The output is that of data import: manifest.csv, maps, and the maps of each of several people.
    """
    from preceptor.label.db import connect, told_errors
    from preceptor.runtime.bulk_import import bulk_import
    from preceptor.runtime.progress import progress

    connection = connect(database, readonly=True)
    with bulk_import():
        from preceptor.data.exporters.images import ExportOptions
        from preceptor.data.exporters.write import manifest_images, write_export
        from preceptor.data.manifest import Manifest
        from preceptor.label.export import MANIFEST, export_marks
    with progress() as bar:
        task = bar.add_task("writing maps", total=None, note="")

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def other_format(folder: Path) -> None:
            if format_ is not None:
                manifest = Manifest.read(folder / MANIFEST, verify=False, need=())
                images = manifest_images(manifest, progress=told)
                write_export(format_, images, folder / format_, ExportOptions())

        with told_errors(database, readonly=True), closing(connection):
            found = export_marks(
                connection,
                database,
                to,
                merge=merge,
                classes=class_ or (),
                add_files=other_format,
                progress=told,
            )
    print(
        f"wrote {to / MANIFEST}: {found.images:,} images, {found.annotated:,} annotated, "
        f"{found.maps:,} with a map, {found.strokes:,} strokes"
    )
    if found.annotators:
        print(f"annotators: {', '.join(found.annotators)}")
    for note, count in found.notes.items():
        print(f"note: {note} ({count:,})")


def label_status(
    database: Annotated[Path, typer.Argument(help="Database of preceptor label.")],
) -> None:
    """Print the state of a database: progress, minutes per image, agreement."""
    from rich.console import Console

    from preceptor.label.db import connect
    from preceptor.label.figures import print_status
    from preceptor.label.sources import root_of

    with closing(connect(database, readonly=True)) as connection:
        print_status(connection, root_of(connection, database), Console())
