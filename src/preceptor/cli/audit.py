"""The command `audit`: whether what lies outside the marks decides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import ManifestPath, Number
from preceptor.errors import InputError, PreceptorError
from preceptor.utils.process import bulk_import


def audit(
    model: str,
    manifest: ManifestPath,
    out: Path | None = None,
    split: Annotated[str | None, typer.Option(show_default="val sets with marks")] = None,
    maps: Path | None = None,
    positive: str | None = None,
    input_size: Annotated[int | None, typer.Option(min=8, max=8192)] = None,
    max_images: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    fail_above: Annotated[float | None, Number()] = None,
    write_images: Path | None = None,
) -> None:
    """Test whether what lies outside the marks decides.

    The model is tested on swapped images: the inside of the marks of one image on the outside of
    another. Nothing is trained.

    Args:
        model: Model folder, NAME:FILE.safetensors (timm), FILE.py:FUNCTION, FILE.onnx, or a table
            with the columns path and score_CLASS of the written images; - with --write-images.
        out: Folder for audit.html and audit.json.
        split: Split of the images; without validation sets with marks it is train.
        maps: Map store or folder of maps, instead of human maps.
        positive: Class whose probability is the score.
        input_size: Side of the input in pixels, for models that do not say it.
        max_images: Largest number of images.
        seed: Seed of the draws.
        fail_above: Exit with 1 if the AUC falls by more than this on swapped images.
        write_images: New folder for the images as PNG, to be scored by a model from elsewhere.
    """
    if (write_images is not None) != (model == "-"):
        raise InputError("--write-images needs no model; write - for MODEL, and only with it")
    if out is not None and out.is_file():
        raise InputError(f"--out {out}: it is a file; name a folder")
    with bulk_import():
        from preceptor.auditing import audit as steps
        from preceptor.auditing.marked import TABLE, make_pictures, read_marked, write_pictures
        from preceptor.auditing.page import next_steps, write_audit
        from preceptor.config.settings import ImageFormat
        from preceptor.data.manifest import Manifest
        from preceptor.utils.process import keep_freed_memory
        from preceptor.utils.text import duration, number

    keep_freed_memory()
    splits = None if split is None else [split]
    if write_images is not None:
        table = Manifest.read(manifest, verify=False, need=())
        form, classes = ImageFormat(input_size or steps.SIDE), table.classes
        marked = read_marked(
            table, form, classes, splits=splits, maps=maps, most=max_images, seed=seed
        )
        write_pictures(make_pictures(marked, form, classes, seed), write_images)
        print(f"wrote {write_images / TABLE}; score its images, then: preceptor audit SCORES.csv")
        return
    examined = steps.audit(
        model, manifest, positive=positive, splits=splits, maps=maps, input_size=input_size,
        most=max_images, seed=seed,
    )  # fmt: skip
    found = examined.audit
    if out is not None:
        write_audit(examined, out)
    print(f"{found.headline} ({found.images:,} images of {', '.join(found.splits)})")
    print(
        f"AUC: ordinary {steps.ranged(found.ordinary)}, swapped {steps.ranged(found.swapped)}, "
        f"for the class of the outside {steps.ranged(found.outside)}"
    )
    wrote = "" if out is None else f"; wrote {out / 'audit.html'} ({duration(found.seconds)})"
    print(f"{next_steps(found)[-1 if found.verdict == 'not shown' else 0]}{wrote}")
    if fail_above is not None and not found.drop.value <= fail_above:
        fall, most = number(found.drop.value), number(fail_above)
        raise PreceptorError(f"the AUC falls by {fall} on swapped images, more than {most}")
