"""Command `preceptor data plant`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import ManifestPath, MarkKind, StampPlace


def data_plant(
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option(help="Output folder.")],
    kind: Annotated[
        MarkKind,
        typer.Option(help="Mark: stamp (a caption), border (two lines) or tint (a color cast)."),
    ] = "stamp",
    place: Annotated[
        StampPlace | None,
        typer.Option(
            help="Place of a stamp: moving (beside the human map) or corner (lower right).",
            show_default="moving",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Share of the images of the class with the mark.")
    ] = 1.0,
    label: Annotated[
        str | None,
        typer.Option(help="Class with the mark.", show_default="the only class with human maps"),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Contrast of the mark in gray levels of 255.")
    ] = 32.0,
    input_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the model's input in pixels: draw a stamp that has the strength there.",
            show_default="the strength is that in the file",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed, 0 or more.")] = 0,
) -> None:
    """Copy a data set and plant a shortcut in it.

    In the splits train and val, images of one class get a mark. A study on the copy tests whether
    guidance prevents a model from relying on the mark.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.cli.data_output import print_planted
        from preceptor.config.files import parse_config
        from preceptor.data.manifest import Manifest
        from preceptor.data.plant import PlantSettings, plant
        from preceptor.runtime.progress import progress

    values = {
        "kind": kind,
        "place": place,
        "rate": rate,
        "label": label,
        "strength": strength,
        "input_size": input_size,
        "seed": seed,
    }
    settings = parse_config(values, PlantSettings, source="data plant")
    table = Manifest.read(manifest, verify=False, need=("train",))
    with progress() as bar:
        task = bar.add_task("writing images", total=None, note="")
        planted = plant(
            table,
            to,
            settings,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_planted(planted)
