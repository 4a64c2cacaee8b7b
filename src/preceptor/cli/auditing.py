"""Commands on what lies outside the marks: audit and repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli.options import ManifestPath, Number
from preceptor.errors import InputError, PreceptorError
from preceptor.utils.process import bulk_import

Positive = Annotated[str | None, typer.Option(help="Class whose probability is the score.")]
InputSize = Annotated[
    int | None,
    typer.Option(
        min=8, max=8192, help="Side of the input in pixels, for models that do not say it."
    ),
]
Scale = Annotated[
    Literal["imagenet", "half", "unit", "none"] | None,
    typer.Option(
        help="Input, for models that do not say it: standardized, −1 to 1, 0 to 1, or 0 to 255.",
        show_default="timm's, else imagenet",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all draws.")]


def audit(
    model: str,
    manifest: ManifestPath,
    out: Path | None = None,
    split: Annotated[str | None, typer.Option(show_default="val sets with marks")] = None,
    maps: Path | None = None,
    positive: Positive = None,
    input_size: InputSize = None,
    normalization: Scale = None,
    max_images: Annotated[int, typer.Option(min=1)] = 200,
    seed: Seed = 0,
    fail_above: Annotated[float | None, Number()] = None,
    write_images: Path | None = None,
) -> None:
    """Test whether what lies outside the marks decides.

    The model is tested on swapped images: the inside of the marks of one image on the outside of
    another. Nothing is trained.

    Args:
        model: Model folder, NAME:FILE.safetensors (timm), torchvision/NAME:FILE.safetensors,
            FILE.py:FUNCTION, FILE.onnx, or a table with the columns path and score_CLASS of the
            written images; - with --write-images.
        out: Folder for audit.html and audit.json.
        split: Split of the images; without validation sets with marks it is train.
        maps: Map store or folder of maps, instead of human maps.
        max_images: Largest number of images.
        fail_above: Exit with 1 if the AUC falls by more than this on swapped images.
        write_images: New folder for the images as PNG, to be scored by a model from elsewhere.
    """
    if (write_images is not None) != (model == "-"):
        raise InputError("--write-images needs no model; write - for MODEL, and only with it")
    if out is not None and out.is_file():
        raise InputError(f"--out {out}: it is a file; name a folder")
    with bulk_import():
        from preceptor.auditing import audit as steps
        from preceptor.auditing.audit import TABLE, make_pictures, write_pictures
        from preceptor.config.settings import ImageFormat
        from preceptor.data.manifest import Manifest
        from preceptor.maps.marked import read_marked
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
        normalization=normalization, most=max_images, seed=seed,
    )  # fmt: skip
    found = examined.audit
    if out is not None:
        steps.write_audit(examined, out)
    print(f"{found.headline} ({found.images:,} images of {', '.join(found.splits)})")
    print(
        f"AUC: ordinary {steps.ranged(found.ordinary)}, swapped {steps.ranged(found.swapped)}, "
        f"for the class of the outside {steps.ranged(found.outside)}"
    )
    wrote = "" if out is None else f"; wrote {out / 'audit.html'} ({duration(found.seconds)})"
    print(f"{steps.next_steps(found)[-1 if found.verdict == 'not shown' else 0]}{wrote}")
    _print_notes(found.notes)
    if fail_above is not None and not found.drop.value <= fail_above:
        fall, most = number(found.drop.value), number(fail_above)
        raise PreceptorError(f"the AUC falls by {fall} on swapped images, more than {most}")


def repair(
    model: str,
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option()],
    teacher: Annotated[bool, typer.Option("--teacher")] = False,
    maps: Path | None = None,
    split: Annotated[str | None, typer.Option(show_default="val sets with marks")] = None,
    positive: Positive = None,
    input_size: InputSize = None,
    normalization: Scale = None,
    seed: Seed = 0,
) -> None:
    """Train the last layer of a model again on swapped images.

    They are training images: the inside of the marks of one on the outside of another. The result
    is a model folder. A model that would be worse is not written.

    Args:
        model: Model folder, NAME:FILE.safetensors (timm), torchvision/NAME:FILE.safetensors, or
            FILE.py:FUNCTION.
        to: Folder of the repaired model, with the page repair.html.
        teacher: Train a Teacher on the marks first, and let it mark all training images.
        maps: Map store or folder of maps of the training images, instead of human maps.
        split: Validation set that chooses the penalty; without marks, training images do.
    """
    with bulk_import():
        from preceptor.auditing import repair as steps
        from preceptor.utils.process import keep_freed_memory

    keep_freed_memory()
    found = steps.repair(
        model, manifest, to, teacher=teacher, maps=maps,
        splits=None if split is None else [split], positive=positive, input_size=input_size,
        normalization=normalization, seed=seed, tell=print,
    )  # fmt: skip
    print(*found.sentences, sep="\n")
    _print_notes(found.notes)
    spec = found.result.model.spec
    if spec.factory and not spec.factory.startswith("preceptor."):
        print(f"note: the model folder calls {spec.factory}, which must be on PYTHONPATH")
    print(f"wrote {to} (page {to / 'repair.html'})")


def _print_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        print(f"note: {note}")
