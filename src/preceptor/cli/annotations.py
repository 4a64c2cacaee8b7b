"""Commands that import annotations of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

imports = typer.Typer(
    help="Import annotations of other tools, and published data sets.", no_args_is_help=True
)

FORMATS = {
    "coco": "COCO instances: boxes, polygons and run-length encoded masks.",
}


def import_annotations(
    context: typer.Context,
    source: Annotated[list[Path], typer.Argument(help="File or folder of the annotations.")],
    to: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images (default: that of SOURCE).", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with path,label[,split,source,group] (default: labels from the annotations).",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(
            help="Class of the shapes to draw; images with one have this label. Repeatable "
            "(default: all classes).",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[
        str, typer.Option(help="Label of images without a shape of these classes.")
    ] = "negative",
    unmarked: Annotated[
        Literal["examined", "unknown"] | None,
        typer.Option(
            help="Images without a shape: examined (nothing to mark) or unknown (not looked at).",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        str,
        typer.Option(help="Maps of the shapes: filled, soft:PX (blurred edges) or centre (blobs)."),
    ] = "filled",
    line_width: Annotated[float, typer.Option(min=0.1, help="Width of lines in pixels.")] = 3.0,
    point_radius: Annotated[float, typer.Option(min=0.1, help="Radius of points in pixels.")] = 5.0,
    merge: Annotated[
        str,
        typer.Option(help="Map of several annotators: mean, majority, any, or one's name."),
    ] = "mean",
    exif: Annotated[
        Literal["auto", "upright", "stored"],
        typer.Option(help="Pixels of the coordinates: of the image upright, or as stored."),
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(
            help="Shares of train, val and test, such as 0.7,0.15,0.15 (default: the splits of "
            "SOURCE).",
            show_default=False,
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            help="Column of --labels, or regular expression on the path of the image, that names "
            "images of one subject.",
            show_default=False,
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the splits.")] = 0,
) -> None:
    """Import annotations: write a manifest and maps."""
    from preceptor.cli.data import print_import
    from preceptor.data import importers
    from preceptor.data.importers.options import ImportOptions, parse_split
    from preceptor.data.importers.rasterize import RasterOptions, parse_shape
    from preceptor.data.importers.write import write_import
    from preceptor.runtime.progress import progress

    kind, soft = parse_shape(shape)
    options = ImportOptions(
        RasterOptions(kind, soft, line_width, point_radius), labels, tuple(positive or ()),
        negative, unmarked, merge, exif, parse_split(split) if split else {}, group_by, seed,
    )  # fmt: skip
    read = getattr(importers, f"read_{context.info_name}")
    folder = images or (source[0] if source[0].is_dir() else source[0].parent)
    with progress() as bar:
        task = bar.add_task("reading annotations", total=None, note="")
        imported = read(source if len(source) > 1 else source[0])
        summary = write_import(
            imported, folder, to, options,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    print_import(summary)


for _name, _help in FORMATS.items():
    imports.command(_name, help=_help)(import_annotations)
