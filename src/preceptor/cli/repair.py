"""The command `repair`: the last layer of a model again, on images without the shortcut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import ManifestPath
from preceptor.utils.process import bulk_import


def repair(
    model: str,
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option()],
    teacher: Annotated[bool, typer.Option("--teacher")] = False,
    maps: Path | None = None,
    split: Annotated[str | None, typer.Option(show_default="val sets with marks")] = None,
    positive: str | None = None,
    input_size: Annotated[int | None, typer.Option(min=8, max=8192)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train the last layer of a model again on images without the shortcut.

    The images are swapped training images: the inside of the marks of one on the outside of
    another. The result is a model folder. A model that would be worse is not written.

    Args:
        model: Model folder, NAME:FILE.safetensors (timm), torchvision/NAME:FILE.safetensors, or
            FILE.py:FUNCTION.
        to: Folder of the repaired model, with the page repair.html.
        teacher: Train a Teacher on the marks first, and let it mark all training images.
        maps: Map store or folder of maps of the training images, instead of human maps.
        split: Validation set that chooses the penalty; without marks, training images do.
        positive: Class whose probability is the score.
        input_size: Side of the input in pixels, for models that do not say it.
        seed: Seed of all draws.
    """
    with bulk_import():
        from preceptor.auditing import repair as steps
        from preceptor.utils.process import keep_freed_memory

    keep_freed_memory()
    found = steps.repair(
        model, manifest, to, teacher=teacher, maps=maps,
        splits=None if split is None else [split], positive=positive, input_size=input_size,
        seed=seed, tell=print,
    )  # fmt: skip
    print(*found.sentences, sep="\n")
    spec = found.result.model.spec
    if spec.factory and not spec.factory.startswith("preceptor."):
        print(f"note: the model folder calls {spec.factory}, which must be on PYTHONPATH")
    print(f"wrote {to} (page {to / 'repair.html'})")
