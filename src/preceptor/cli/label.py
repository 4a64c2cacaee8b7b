"""The commands `preceptor label`; `label MANIFEST` is `label run MANIFEST`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli.options import Commands, RunByDefault, counting, needing
from preceptor.errors import InputError, is_control, listed
from preceptor.utils.process import bulk_import
from preceptor.utils.text import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.label.app import Prepared


label = Commands(
    cls=RunByDefault,
    help="Mark images in a browser. `label MANIFEST` is short for `label run MANIFEST`.",
    no_args_is_help=True,
)


@label.command()
def run(
    source: Annotated[Path, typer.Argument(metavar="MANIFEST|FOLDER")],
    quick: Annotated[bool, typer.Option("--quick")] = False,
    labels: str | None = None,
    splits: str | None = None,
    host: str = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    opens: Annotated[bool, typer.Option("--open/--no-open")] = True,
    allow_host: list[str] | None = None,
    overlap: Annotated[int | None, typer.Option(min=1, max=1000, show_default="1")] = None,
    database: Path | None = None,
) -> None:
    """Serve the page on which images are marked.

    All marks are in one SQLite file. The same command continues; settings that are not given do not
    change.

    Args:
        source: Manifest, or folder of images.
        quick: One click on the evidence of each image, instead of outlines.
        labels: Labels among which people choose, separated by commas (default: those of the
            manifest).
        splits: Splits whose images are marked, separated by commas (default: all).
        host: Address of the page; 0.0.0.0 = all of this machine, for other people.
        port: Port; 0 = any free one (default: that of the last start, at first any free one).
        opens: Whether to open the page in the browser.
        allow_host: Additional host name of this server. Repeatable.
        overlap: Number of people who mark each image.
        database: Database (default: NAME.label.sqlite beside the manifest).
    """
    with needing("web", "label"):
        from preceptor.deploy.http_server import serve
        from preceptor.label.app import application
    from preceptor.deploy.http import Hosts, address_of
    from preceptor.label.app import labeling_of, listen_as_before, prepare
    from preceptor.label.db import serving
    from preceptor.label.sources import find_source, rows_of
    from preceptor.utils.process import return_freed_memory

    return_freed_memory()
    given = {
        "labels": _names("--labels", labels),
        "overlap": overlap,
        "splits": _names("--splits", splits),
    }
    stated = {key: value for key, value in given.items() if value is not None}
    origin = find_source(source)
    path = database or origin.database
    # Beside the database, as the key is: not every browser may read the folder of temporary files.
    door = path.with_name(f"{path.name}.html")
    # Read before any file is made: a manifest that is refused leaves nothing behind.
    rows = None if path.exists() or not path.parent.is_dir() else rows_of(origin)
    with serving(path):
        prepared = prepare(path, origin, stated, rows)
        at, taken = listen_as_before(path, host, port)
        hosts = Hosts.of(host, at.getsockname()[1], tuple(allow_host or ()))
        labeling = labeling_of(prepared, hosts, quick=quick)
        try:
            _tell(prepared)
            if taken is not None:
                what = f"note: port {taken} of the last start is taken; marks that a browser could"
                print(f"{what} not save then are saved after a start at that port")
            base = address_of(host, hosts.port)
            link = f"{base}?token={labeling.keys.token}"
            print(f"open {link}", flush=True)
            if opens:
                import threading
                import webbrowser

                # All users of the machine can read the command line of a browser, not this file.
                door.unlink(missing_ok=True)
                door.touch(mode=0o600)
                door.write_text(_DOOR.format(link=link), encoding="utf-8")
                # A browser in the terminal runs until it is closed; the page is served meanwhile.
                place = (door.resolve().as_uri(),)
                threading.Thread(target=webbrowser.open, args=place, daemon=True).start()
            serve(application(labeling), at)
        finally:
            door.unlink(missing_ok=True)
            labeling.close()
    print(f"stopped; all that was saved is in {path}")


_DOOR = '<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">preceptor label</a>\n'


def _tell(prepared: Prepared) -> None:
    """Say which database it is, and what a changed manifest did."""
    print(f"marks: {prepared.path}")
    if (changes := prepared.changes) is None:
        return
    if prepared.first:
        print(f"images: {changes['added']:,}")
        return
    said = ", ".join(f"{count:,} {what}" for what, count in changes.items() if count)
    print(f"note: {prepared.source.place.name} has changed: {said or 'no image of it'}")


def _names(option: str, text: str | None) -> tuple[str, ...] | None:
    """Different names, separated by commas."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if any(not 1 <= len(name) <= 60 or any(map(is_control, name)) for name in names):
        raise InputError(f"{option} {text!r}: a name has 1 to 60 characters")
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(f"{option} {text!r}: a name occurs twice")
    return names


@label.command("export")
def label_export(
    database: Path,
    to: Annotated[Path, typer.Option()],
    merge: str = "mean",
) -> None:
    """Export the marks of a database.

    The files are as for data import: manifest.csv, maps, and the maps of each person.

    Args:
        database: Database of preceptor label.
        to: Output folder, new or empty.
        merge: How maps of several people are merged: mean, majority, any, or one person's name.
    """
    from preceptor.label.db import connect, told_errors

    connection = connect(database, readonly=True)
    with bulk_import():
        from preceptor.label.export import MANIFEST, export_marks
    with (
        counting("writing maps") as told,
        told_errors(database),
        closing(connection),
    ):
        counts = export_marks(connection, database, to, merge=merge, progress=told)
    print(
        f"wrote {to / MANIFEST}: {counts['images']:,} images, {counts['annotated']:,} annotated, "
        f"{counts['maps']:,} with a map, {counts['strokes']:,} strokes"
    )
    if counts["annotators"]:
        print(f"annotators: {', '.join(counts['annotators'])}")
    for note, count in counts["notes"].items():
        print(f"note: {note} ({count:,})")


@label.command("status")
def label_status(database: Path) -> None:
    """Print the state of a database: progress and minutes per image.

    Args:
        database: Database of preceptor label.
    """
    from rich.console import Console

    from preceptor.label.db import connect, told_errors
    from preceptor.label.marks import STATES, marks_without_answer
    from preceptor.label.queue import figures

    console = Console()
    with told_errors(database), closing(connect(database, readonly=True)) as connection:
        numbers, unanswered = figures(connection), len(marks_without_answer(connection))
        (strokes,) = connection.execute("SELECT count(*) FROM strokes WHERE undone = 0").fetchone()
        rows = connection.execute(
            "SELECT path, problem FROM images WHERE problem IS NOT NULL AND listed = 1"
        ).fetchall()
        problems = [f"{Path(path).name}: {problem}" for path, problem in rows]
    told = f"{numbers['done']:,} of {numbers['images']:,} images done, {strokes:,} strokes"
    console.print(told, highlight=False)
    columns = {"person": "name"} | {state.replace("_", " "): state for state in STATES}
    _print(console, columns | {"min an image": "minutes"}, numbers["people"])
    if unanswered:
        verb = "image has" if unanswered == 1 else "images have"
        console.print(f"{unanswered:,} {verb} marks without an answer that counts", highlight=False)
    if problems:
        count = len(problems)
        lines = [f"{count:,} image{'s' if count > 1 else ''} cannot be shown", *listed(problems)]
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _print(console: Console, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    if rows:
        cells = [[row[key] for key in columns.values()] for row in rows]
        texts = [["–" if one is None else one for one in line] for line in cells]
        lines = [[f"{x:.2f}" if isinstance(x, float) else str(x) for x in line] for line in texts]
        named = {title for title, key in columns.items() if isinstance(rows[0][key], str)}
        print_table(list(columns), lines, console, right=columns.keys() - named)
