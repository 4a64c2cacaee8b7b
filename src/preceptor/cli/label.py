"""The commands `preceptor label`; `label MANIFEST` is `label run MANIFEST`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from preceptor.label.sources import Row, Source

Order = Literal["random", "source", "uncertainty", "gain"]
Proposals = Literal["first", "after", "never"]


class _RunByDefault(TyperGroup):
    """Command group whose default command is `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `run` if the first argument is not a command."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


label = typer.Typer(
    cls=_RunByDefault,
    help="Mark where the evidence is, in a browser. `label MANIFEST` is short for `label run "
    "MANIFEST`.",
    no_args_is_help=True,
)


@label.command()
def run(
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|FOLDER", help="Manifest, or folder of images.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(help="Classes of marks, with commas between them.", show_default="evidence"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Labels of images that may be answered, with commas between them (default: those "
            "of the manifest).",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address at which the page is served.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 = any free one.")] = 0,
    opens: Annotated[
        bool, typer.Option("--open/--no-open", help="Whether to open the page in the browser.")
    ] = True,
    order: Annotated[
        Order | None,
        typer.Option(help="Order of the images.", show_default="random"),
    ] = None,
    proposals: Annotated[
        Proposals | None,
        typer.Option(
            help="When a Teacher's proposal is shown: first, after the first own mark, or never.",
            show_default="after",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Random seed of the order and the overlap.", show_default="0"),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(help="Database (default: NAME.label.sqlite beside it).", show_default=False),
    ] = None,
) -> None:
    """Serve the page on which images are marked.

    All marks are in one SQLite file. The same command continues.
    """
    from preceptor.errors import InputError

    try:
        from preceptor.label.server import application, listen, serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise InputError(
            f"label: {error.name} is not installed; pip install 'preceptor[web]'"
        ) from error
    from preceptor.label.database import serving
    from preceptor.label.hosts import Hosts
    from preceptor.label.sources import find_source
    from preceptor.label.start import labeling_of, prepare

    given = {
        "classes": _names("--classes", classes), "labels": _names("--labels", labels),
        "order": order, "proposals": proposals, "seed": seed,
    }  # fmt: skip
    found = find_source(source)
    path = database or found.database
    with serving(path):
        prepared = prepare(
            path, found, _rows, {key: value for key, value in given.items() if value is not None}
        )
        try:
            at = listen(host, port)
        except OSError as error:
            raise InputError(
                f"--host {host} --port {port}: {error.strerror or error}; choose another"
            ) from error
        labeling = labeling_of(prepared, Hosts.of(host, at.getsockname()[1]))
        name = f"[{host}]" if ":" in host else host
        link = f"http://{name}:{labeling.hosts.port}/?token={labeling.keys.lead_token}"
        print(f"marks: {path}", flush=True)
        print(f"open {link}", flush=True)
        if opens:
            import webbrowser

            webbrowser.open(link)
        try:
            serve(application(labeling), at)
        finally:
            labeling.close()
    print(f"stopped; all marks are in {path}")


def _names(option: str, text: str | None) -> tuple[str, ...] | None:
    from preceptor.errors import InputError, is_control

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not 1 <= len(name) <= 60 or any(map(is_control, name)):
            raise InputError(f"{option} {text!r}: a name has 1 to 60 characters")
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(f"{option} {text!r}: a name is there twice")
    return names


def _rows(source: Source) -> Sequence[Row]:
    if source.is_folder:
        from preceptor.label.sources import folder_rows

        return folder_rows(source)
    from preceptor.label.table import table_rows

    return table_rows(source)
