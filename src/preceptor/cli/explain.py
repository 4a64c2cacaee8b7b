"""Command `preceptor explain`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from preceptor.errors import InputError, one_line, without_secrets
from preceptor.runtime.formatting import fine_number
from preceptor.runtime.model_paths import check_model_folder


def explain(
    model: Annotated[Path, typer.Argument(help="Model folder, such as best.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files or URLs.")],
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Manifest of the training images, among which similar ones are searched, and of "
            "the validation images, if the model is not calibrated."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output page.")] = Path("explanation.html"),
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Threshold of the decision: a rule (eer, fdr5%, bpcer1%) or a number.",
            show_default="eer",
        ),
    ] = None,
    masks: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Maximum number of RISE masks per image.")
    ] = 1000,
    similar: Annotated[
        int, typer.Option(min=1, max=100, help="Number of similar training images.")
    ] = 6,
    sample: Annotated[
        int, typer.Option(min=1, help="Maximum number of training images that are compared.")
    ] = 5000,
) -> None:
    """Explain decisions of a model on one page.

    The page has the image with the map and the RISE map of the decided class, its score among
    those of the validation images, the deletion curves, and the most similar training images.
    """
    from preceptor.runtime.bulk_import import bulk_import

    if model.is_file():
        raise InputError(f"{model}: RISE needs the network itself; name its model folder")
    check_model_folder(model)
    with bulk_import():
        from preceptor.cli.output_files import PAGE_FORMATS, check_target
        from preceptor.data.manifest import Manifest
        from preceptor.explain.explanation import explain as explain_images
        from preceptor.explain.page import explain_page
        from preceptor.models.model_folder import load_model
        from preceptor.predictor.load import load
        from preceptor.runtime.progress import progress
        from preceptor.runtime.result_folder import write_atomically

    check_target("--out", out, formats=PAGE_FORMATS)
    predictor = load(model, threshold=threshold, device="cpu")
    table = None
    if manifest is not None:
        classes = predictor.info.classes
        table = Manifest.read(manifest, verify=False, need=("train",), classes=classes)
    with progress() as bar:

        def start(name: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(name, total=total, note="")
            return lambda count: bar.advance(task, count)

        found = explain_images(
            predictor, load_model(model), images, table, max_masks=masks, neighbors=similar,
            sample=sample, start_task=start,
        )  # fmt: skip
    name = model.absolute().name
    write_atomically(out, explain_page(found, predictor.info, predictor.threshold, name))
    for one in found.explanations:
        path = one_line(without_secrets(one.path))
        print(f"{path}: {one.prediction.decision}, score {fine_number(one.prediction.score)}")
    print(f"wrote {out}")
