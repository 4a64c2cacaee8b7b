"""Command `preceptor data export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli.options import finite

Format = Literal["masks", "coco", "labelstudio", "labelme", "cvat"]
Shapes = Literal["polygons", "masks"]
Kind = Literal["annotations", "predictions"]
Interpolation = Literal["linear", "area"]


def data_export(
    format_: Annotated[
        Format, typer.Argument(metavar="FORMAT", help="masks, coco, labelstudio, labelme or cvat.")
    ],
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|STORE", help="Manifest, or a Teacher's map store.")
    ],
    to: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="Manifest of the images of a map store.", show_default=False),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1,
            help="Smallest value of the map, 0 to 1, of a pixel inside a shape (default: 0.5; "
            "format masks of a manifest: gray levels are kept).",
            show_default=False,
            callback=finite,
        ),
    ] = None,
    shapes: Annotated[Shapes, typer.Option(help="Shapes: polygons or masks.")] = "polygons",
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            help="Largest deviation of a simplified polygon, in pixels.",
            callback=finite,
        ),
    ] = 0.0,
    positive: Annotated[
        list[str] | None,
        typer.Option(
            help="Class whose maps are exported; images of other classes have no shapes. "
            "Repeatable (default: all classes).",
            show_default=False,
        ),
    ] = None,
    as_: Annotated[
        Kind | None,
        typer.Option(
            "--as",
            help="Kind of the shapes: annotations (default for a manifest) or predictions (default "
            "for a map store).",
            show_default=False,
        ),
    ] = None,
    interpolation: Annotated[
        Interpolation,
        typer.Option(help="Interpolation of a map store: linear, or area (constant in each cell)."),
    ] = "linear",
    image_prefix: Annotated[
        str,
        typer.Option(help="Address before the names of the images in Label Studio."),
    ] = "/data/local-files/?d=",
    annotator: Annotated[
        str | None,
        typer.Option(
            help="Export the maps of this annotator instead of the merged ones, from the folder "
            "annotators beside the manifest.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Export also images of a manifest that nobody examined.")
    ] = False,
) -> None:
    """Export maps to another tool.

    The human maps of a manifest, or a Teacher's maps, are written as annotations to be corrected.
    labels.csv has the columns that the format lacks: give it to data import with --labels.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.data.annotators import MANIFEST, read_annotators
        from preceptor.data.exporters.images import ExportOptions
        from preceptor.data.exporters.write import manifest_images, write_export
        from preceptor.data.manifest import Manifest
        from preceptor.errors import InputError
        from preceptor.maps.export import store_images, unsettled
        from preceptor.maps.store import is_store, read_store
    from preceptor.runtime.progress import progress

    stored = source.is_dir()
    if stored and not is_store(source):
        raise InputError(f"{source}: neither a manifest nor a map store; name one of them")
    if stored and manifest is None:
        raise InputError(f"{source} is a map store; name the manifest of its images by --manifest")
    if not stored and manifest is not None:
        raise InputError("--manifest belongs to a map store; a manifest is exported by itself")
    if stored and every:
        raise InputError("--all belongs to a manifest; of a map store all images are exported")
    if annotator is not None and (stored or every):
        raise InputError("--annotator belongs to a manifest without --all; leave one of them out")
    if annotator is not None and source.name != MANIFEST:
        raise InputError(f"--annotator needs FOLDER/{MANIFEST} of data import, not {source}")
    if stored and threshold is None:
        threshold = 0.5
    predictions = as_ == "predictions" if as_ is not None else stored
    if annotator is not None:
        table = read_annotators(source.parent).manifest_of(annotator)
    else:
        table = Manifest.read(manifest or source, verify=False, need=())
    with progress() as bar:
        task = bar.add_task("exporting", total=None, note="")

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        model, noise = "", 0
        if stored:
            store = read_store(source, columns=("map", "class", "score", "error"))
            noise = unsettled(store, positive or ())
            model = f"{store.info.teacher} {store.info.method}"
            images = store_images(
                store, table, positive=positive or (), interpolation=interpolation, progress=told
            )
        else:
            images = manifest_images(table, every=every, positive=positive or (), progress=told)
        options = ExportOptions(shapes, threshold, tolerance, predictions, model, image_prefix)
        summary = write_export(format_, images, to, options)
    print(f"wrote {to}: {summary.images:,} images, {summary.marked:,} with marks")
    if noise:
        print(f"{noise:,} maps did not reach the tolerance and were left out")
