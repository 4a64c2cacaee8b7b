"""The command `preceptor export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli.options import CacheDirOption, CacheOption, ExportTarget, InputType
from preceptor.runtime.model_paths import check_model_folder

if TYPE_CHECKING:
    from preceptor.model_export.export import Exported, ExportSettings
    from preceptor.model_export.parity import Parity


def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    to: Annotated[
        ExportTarget,
        typer.Option(help="Format: onnx, torch_export (a .pt2 package), or a copied model folder."),
    ],
    out: Annotated[Path, typer.Option(help="Output file or folder.")],
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Manifest; the export is checked on its validation images (default: on synthetic "
            "images).",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Maximum number of validation images.")] = 1000,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Threshold of the output decision: a rule (eer, fdr5%) or a number.",
            show_default="eer if the model has it",
        ),
    ] = None,
    map_: Annotated[
        bool, typer.Option("--map/--no-map", help="Whether the file computes maps.")
    ] = True,
    input_type: Annotated[
        InputType,
        typer.Option("--input", help="Type of the input, which has values from 0 to 255."),
    ] = "uint8",
    fixed_size: Annotated[
        bool, typer.Option("--fixed-size", help="Fix height and width of the input.")
    ] = False,
    cache_dir: CacheDirOption = None,
    cache: CacheOption = "none",
) -> None:
    """Export a model folder for use without this library.

    The file contains pre-processing, decision and map. It is kept only if its outputs equal those
    of the model.
    """
    from preceptor.runtime.bulk_import import bulk_import

    check_model_folder(model)
    with bulk_import():
        from preceptor.cli.output_files import check_target
        from preceptor.data.manifest import Manifest
        from preceptor.data.workspace import Workspace
        from preceptor.errors import InputError
        from preceptor.model_export.check_images import validation_images
        from preceptor.model_export.export import (
            SUFFIXES,
            ExportSettings,
            check_settings,
            export_model,
        )
        from preceptor.models.model_folder import load_model

    copied = model if to == "folder" else None
    check_target("--out", out, copied=copied, formats=SUFFIXES.get(to))
    settings = ExportSettings(to, threshold, map_, input_type, not fixed_size)
    found = None
    if manifest is not None:
        spec = load_model(model).spec
        table = Manifest.read(manifest, verify=False, need=(), classes=spec.classes)
        found = validation_images(
            Workspace(table, cache_dir), spec.image_format, spec.classes, cache
        ).sample(images)
    check_settings(settings)
    try:
        exported = export_model(model, out, settings, found)
    except ModuleNotFoundError as error:
        if to != "onnx" or error.name not in ("onnx", "onnxruntime", "onnxscript"):
            raise
        raise InputError(
            f"--to onnx: {error.name} is not installed; pip install '.[onnx]' in the source folder"
        ) from error
    _print(out, settings, exported, validation=found is not None)


def _print(out: Path, settings: ExportSettings, exported: Exported, *, validation: bool) -> None:
    """Print what was written and how it differs from the model."""
    files = [file for file in out.rglob("*") if file.is_file()] if out.is_dir() else [out]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"wrote {out}: {size:.1f} MB")
    if exported.dynamic_size is not None:
        sizes = "any batch size, height and width" if exported.dynamic_size else "any batch size"
        if not exported.dynamic_size:
            why = "" if not settings.dynamic_size else ": the backbone accepts no other size"
            sizes += f"; fixed height and width{why}"
        print(f"input: {settings.input_type}, {sizes}")
        rule = "the most probable class"
        if exported.threshold is not None:
            rule = f"positive at a score of {exported.threshold:.6g} or more"
        print(f"decision: {rule}")
    kind = "validation" if validation else "synthetic"
    print(_differences(exported.parity, kind))
    for name, (before, after) in exported.parity.aucs.items():
        print(f"AUC on {name}: {before:.4f} of the model, {after:.4f} of the export, "
              f"difference {after - before:+.4f}")  # fmt: skip
    if not validation:
        print("note: without a manifest, the check used synthetic images and has no AUC")


def _differences(parity: Parity, kind: str) -> str:
    """Sentence with the largest differences."""
    maps = "" if parity.maps is None else f", of a map {parity.maps:.1e}"
    gap = parity.distances
    distances = "" if gap is None else f", of a distance from training {gap:.1e} of its value"
    decisions = ""
    if parity.decisions is not None:
        decisions = f", the decision at the threshold on {parity.decisions:,}"
    return (
        f"largest difference of a probability {parity.probabilities:.1e}{maps}{distances} on "
        f"{parity.images:,} {kind} images; the most probable class differs on "
        f"{parity.most_probable:,}{decisions}"
    )
