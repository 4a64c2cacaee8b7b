"""Command `preceptor calibrate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import CalibrationMethod, Device, ManifestPath, finite


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model folder, such as best.")],
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option(help="Output folder: a copy of the model folder.")],
    method: Annotated[
        CalibrationMethod,
        typer.Option(help="Calibration of the probabilities: temperature, isotonic or none."),
    ] = "temperature",
    false_alarms: Annotated[
        float,
        typer.Option(
            min=1e-6,
            max=0.5,
            help="Share of familiar images that are flagged as unfamiliar.",
            callback=finite,
        ),
    ] = 0.01,
    sample: Annotated[
        int, typer.Option(min=2, help="Maximum number of training images that are used.")
    ] = 10_000,
    device: Annotated[Device, typer.Option(help="Device of the model.")] = "auto",
) -> None:
    """Calibrate a model on the validation images of a manifest.

    A copy of the model folder is written in which probabilities are calibrated and unfamiliar
    images are flagged. The results are in its model card.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.calibration.card import calibration_sentences
        from preceptor.calibration.make_reference import make_reference
        from preceptor.calibration.write import check_uncalibrated, write_calibrated
        from preceptor.cli.output_files import check_target
        from preceptor.data.manifest import Manifest
        from preceptor.predictor.load import load
        from preceptor.predictor.referenced_network import referenced_info
        from preceptor.runtime.progress import progress

    check_uncalibrated(model)
    check_target("--out", out, copied=model)
    predictor = load(model, device=device)
    table = Manifest.read(
        manifest, verify=False, need=("train", "val"), classes=predictor.info.classes
    )
    with progress() as bar:

        def start(name: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(name, total=total, note="")
            return lambda count: bar.advance(task, count)

        made = make_reference(
            predictor, table, method=method, rate=false_alarms, sample=sample, start_task=start
        )
    write_calibrated(model, made, referenced_info(predictor.info, made.reference), out)
    for sentence in calibration_sentences(made):
        print(sentence)
    aucs = made.aucs[made.reference.kind]
    print(
        f"Unfamiliar images by {made.reference.kind}: false alarm rate {false_alarms:g}, AUC "
        f"{sum(aucs.values()) / len(aucs):.3f} on changed copies of validation images."
    )
    print(f"wrote {out}")
