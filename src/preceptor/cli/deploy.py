"""Commands of a trained model: `predict`, `explain`, `calibrate`, `export` and `serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli.options import (
    PAGE_FORMATS,
    CacheDirOption,
    CacheOption,
    CalibrationMethod,
    DeviceOption,
    InputType,
    ManifestPath,
    MapFiles,
    Number,
    Precision,
    check_suffix,
    check_target,
    needing,
)
from preceptor.errors import InputError, PreceptorError, one_line, without_secrets
from preceptor.utils.plugins import check_model_folder
from preceptor.utils.process import bulk_import

if TYPE_CHECKING:
    from rich.progress import Progress

    from preceptor.deploy.export import Exported, ExportSettings

# Bad images that are named on standard error; all are in the output.
_NAMED = 20


def _tasks(bar: Progress) -> Callable[[str, int], Callable[[int], None]]:
    """Function that adds a task to a progress bar, and returns the function that advances it."""

    def start(name: str, total: int) -> Callable[[int], None]:
        task = bar.add_task(name, total=total, note="")
        return lambda count: bar.advance(task, count)

    return start


def predict(
    model: Path,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...")],
    out: Annotated[Path | None, typer.Option(show_default="CSV on standard output")] = None,
    maps: MapFiles | None = None,
    maps_to: Annotated[
        Path | None, typer.Option(show_default="beside the output, NAME-maps")
    ] = None,
    map_of: Annotated[str | None, typer.Option(show_default="the positive class")] = None,
    threshold: Annotated[
        str | None, typer.Option(show_default="that of the export, else eer")
    ] = None,
    device: DeviceOption = "auto",
    precision: Precision = "32-true",
    batch_size: Annotated[int | None, typer.Option(min=1, show_default="chosen by a probe")] = None,
    workers: Annotated[int | None, typer.Option(min=1, show_default="one per core")] = None,
) -> None:
    """Predict images with a trained model.

    The table has the decision, the score and all probabilities of each image, in the order of the
    inputs. Images that cannot be read have the reason in the column error, and the exit code is 1.
    The same command resumes an interrupted one.

    Args:
        model: Model folder, such as best, or ONNX file.
        inputs: Image files or URLs, folders, patterns in quotes, manifests (CSV or Parquet), or -
            for a list of paths on standard input, one per line.
        out: Output table: .csv, .parquet or .jsonl.
        maps: Maps to write: overlay (over the image) or png (grayscale, size of the image).
        maps_to: Folder of the maps.
        map_of: Class of the maps.
        threshold: Threshold of the decision: a rule (eer, fdr5%, bpcer1%) or a number.
        precision: Precision; the thresholds were fixed in 32-true.
        batch_size: Number of images per forward pass.
        workers: Number of threads that decode images.
    """
    with bulk_import():
        from preceptor.deploy.image_list import LIST, ImageList
        from preceptor.deploy.predict_files import (
            WRITERS,
            MapOutput,
            is_unfinished,
            predict_files,
            print_predictions,
        )
        from preceptor.deploy.predictor import files_digest, load
        from preceptor.utils.text import progress

    output = None
    if maps_to is not None and maps is None:
        raise InputError(f"--maps-to {maps_to}: there are no maps; add --maps")
    if out is None:
        if maps is not None:
            raise InputError("maps need an output; add --out FILE")
    else:
        check_suffix("--out", out, WRITERS)
        folder = maps_to or out.with_name(f"{out.stem}-maps")
        if not is_unfinished(out):
            check_target("--out", out)
            if maps is not None:
                check_target("--maps-to", folder)
        if maps is not None:
            output = MapOutput(maps, folder, map_of)
    if map_of is not None and maps is None:
        raise InputError(f"--map-of {map_of}: there are no maps; add --maps")
    lines = map(os.fsdecode, sys.stdin.buffer) if LIST in inputs else ()
    images = ImageList(inputs, lines, None if output is None else output.folder)
    with bulk_import():
        predictor = load(
            model, threshold=threshold, device=device, precision=precision,
            batch_size=batch_size, workers=workers,
        )  # fmt: skip
    left_out = images.left_out()  # before files are written, perhaps into a folder of the images
    numbers = count(1)

    def report_bad(name: str, reason: str) -> None:
        if next(numbers) <= _NAMED:
            print(f"bad image: {one_line(without_secrets(name))}: {reason}", file=sys.stderr)

    if out is None:
        found = print_predictions(predictor, images, sys.stdout, report_bad=report_bad)
    else:
        with progress() as bar:
            task = bar.add_task("predicting", total=images.count(), note="")
            found = predict_files(
                predictor, images, out, model=files_digest(model),
                settings=[threshold, device, precision, batch_size], maps=output,
                advance=lambda done: bar.advance(task, done), report_bad=report_bad,
            )  # fmt: skip
        decisions = ", ".join(
            f"{name} {found.decisions[name]:,}" for name in predictor.info.classes
        )
        print(f"wrote {out}: {found.decisions.total() + found.bad:,} images ({decisions})")
        if output is not None:
            print(f"maps {output.folder}")
    if left_out:
        kinds = ", ".join(f"{kind or 'no suffix'} {n:,}" for kind, n in left_out.most_common(5))
        more = ", …" if len(left_out) > 5 else ""
        print(
            f"other files left out: {left_out.total():,} ({kinds}{more})",
            file=sys.stderr if out is None else sys.stdout,
        )
    if found.bad:
        total = found.decisions.total() + found.bad
        where = "" if out is None else f"; the column error of {out} has the reasons"
        raise PreceptorError(f"{found.bad:,} of {total:,} images could not be read{where}")


def explain(
    model: Path,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...")],
    manifest: Path | None = None,
    out: Path = Path("explanation.html"),
    threshold: Annotated[str | None, typer.Option(show_default="eer")] = None,
    masks: Annotated[int, typer.Option(min=2, max=1_000_000)] = 1000,
    similar: Annotated[int, typer.Option(min=1, max=100)] = 6,
    sample: Annotated[int, typer.Option(min=1)] = 5000,
) -> None:
    """Explain decisions of a model on one page.

    The page has the image with the map and the RISE map of the decided class, its score among
    those of the validation images, the deletion curves, and the most similar training images.

    Args:
        model: Model folder, such as best.
        images: Image files or URLs.
        manifest: Manifest of the training images, among which similar ones are searched, and of the
            validation images, whose scores are drawn.
        out: Output page.
        threshold: Threshold of the decision: a rule (eer, fdr5%, bpcer1%) or a number.
        masks: Maximum number of RISE masks per image.
        similar: Number of similar training images.
        sample: Maximum number of training images that are compared, and of validation images.
    """
    if model.is_file():
        raise InputError(f"{model}: RISE needs the network itself; name its model folder")
    check_model_folder(model)
    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.deploy.explain import explain as explain_images
        from preceptor.deploy.explain import explain_page
        from preceptor.deploy.predictor import load
        from preceptor.models.build import load_model
        from preceptor.utils.results import write_atomically
        from preceptor.utils.text import progress

    check_target("--out", out, formats=PAGE_FORMATS)
    predictor = load(model, threshold=threshold, device="cpu")
    table = None
    if manifest is not None:
        classes = predictor.info.classes
        table = Manifest.read(manifest, verify=False, need=("train",), classes=classes)
    from preceptor.utils.text import fine_number

    with progress() as bar:
        found = explain_images(
            predictor, load_model(model), images, table, max_masks=masks, neighbors=similar,
            sample=sample, start_task=_tasks(bar),
        )  # fmt: skip
    name = model.absolute().name
    write_atomically(out, explain_page(found, predictor.info, predictor.threshold, name))
    for one in found.explanations:
        path = one_line(without_secrets(one.path))
        print(f"{path}: {one.prediction.decision}, score {fine_number(one.prediction.score)}")
    print(f"wrote {out}")


def calibrate(
    model: Path,
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option()],
    method: CalibrationMethod = "temperature",
    device: DeviceOption = "auto",
) -> None:
    """Calibrate a model on the validation images of a manifest.

    A copy of the model folder is written in which probabilities are calibrated. The results are in
    its model card.

    Args:
        model: Model folder, such as best.
        out: Output folder: a copy of the model folder.
        method: Calibration of the probabilities: temperature or isotonic.
    """
    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.deploy.calibrate import calibrate as fit
        from preceptor.deploy.calibrate import (
            calibration_sentences,
            check_uncalibrated,
            write_calibrated,
        )
        from preceptor.deploy.network import calibrated_info
        from preceptor.deploy.predictor import load
        from preceptor.utils.text import progress

    check_uncalibrated(model)
    check_target("--out", out, copied=model)
    predictor = load(model, device=device)
    classes = predictor.info.classes
    table = Manifest.read(manifest, verify=False, need=("val",), classes=classes)
    with progress() as bar:
        task = bar.add_task("validation images", total=None, note="")
        fitted = fit(predictor, table, method, lambda count: bar.advance(task, count))
    write_calibrated(model, fitted, calibrated_info(predictor.info, fitted.calibration), out)
    print(*calibration_sentences(fitted), sep="\n")
    print(f"wrote {out}")


def export(
    model: Path,
    out: Annotated[Path, typer.Option()],
    manifest: Path | None = None,
    images: Annotated[int, typer.Option(min=1)] = 1000,
    threshold: Annotated[str | None, typer.Option(show_default="eer if the model has it")] = None,
    map_: Annotated[bool, typer.Option("--map/--no-map")] = True,
    input_type: Annotated[InputType, typer.Option("--input")] = "uint8",
    cache_dir: CacheDirOption = None,
    cache: CacheOption = "none",
) -> None:
    """Export a model folder to an ONNX file for use without this library.

    The file contains pre-processing, decision and map. It is kept only if its outputs equal those
    of the model.

    Args:
        model: Model folder.
        out: Output file: .onnx.
        manifest: Manifest; the export is checked on its validation images (default: on synthetic
            images).
        images: Maximum number of validation images.
        threshold: Threshold of the output decision: a rule (eer, fdr5%) or a number.
        map_: Whether the file computes maps.
        input_type: Type of the input, which has values from 0 to 255.
    """
    check_model_folder(model)
    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.data.workspace import Workspace
        from preceptor.deploy.export import (
            SUFFIXES,
            ExportSettings,
            export_model,
            validation_images,
        )
        from preceptor.models.build import load_model

    check_target("--out", out, formats=SUFFIXES)
    settings = ExportSettings(threshold, map_, input_type)
    found = None
    if manifest is not None:
        spec = load_model(model).spec
        table = Manifest.read(manifest, verify=False, need=(), classes=spec.classes)
        found = validation_images(
            Workspace(table, cache_dir), spec.image_format, spec.classes, cache, images
        )
    with needing("onnx", "export"):
        exported = export_model(model, out, settings, found)
    _print(out, settings, exported, validation=found is not None)


def _print(out: Path, settings: ExportSettings, exported: Exported, *, validation: bool) -> None:
    """Print what was written and how it differs from the model."""
    from preceptor.deploy.prediction import threshold_text

    rule = "the most probable class"
    if exported.threshold is not None:
        rule = f"positive at a score of {threshold_text(exported.threshold)} or more"
    parity = exported.parity
    decisions = parity.decisions
    maps = "" if parity.maps is None else f", of a map {parity.maps:.1e}"
    decided = "" if decisions is None else f", the decision at the threshold on {decisions:,}"
    kind = "validation" if validation else "synthetic"
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB")
    print(f"input: {settings.input_type}, any batch size")
    print(f"decision: {rule}")
    print(
        f"largest difference of a probability {parity.probabilities:.1e}{maps} on "
        f"{parity.images:,} {kind} images; the most probable class differs on "
        f"{parity.most_probable:,}{decided}"
    )
    for name, (before, after) in parity.aucs.items():
        print(f"AUC on {name}: {before:.4f} of the model, {after:.4f} of the export, "
              f"difference {after - before:+.4f}")  # fmt: skip
    if not validation:
        print("note: without a manifest, the check used synthetic images and has no AUC")


def serve(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…")],
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    keys: Path | None = None,
    no_keys: Annotated[bool, typer.Option("--no-keys")] = False,
    threshold: Annotated[
        str | None, typer.Option(show_default="that of the export, else eer if the model has it")
    ] = None,
    device: str = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, show_default="chosen by a probe")] = None,
    delay: Annotated[float, Number(min=0, max=1000)] = 5.0,
    queue: Annotated[int, typer.Option(min=1)] = 256,
    timeout: Annotated[float, Number(min=0.001)] = 30.0,
    workers: Annotated[int | None, typer.Option(min=1, show_default="one per core")] = None,
    max_body: Annotated[int, typer.Option(min=1)] = 32,
    max_pixels: Annotated[int, typer.Option(min=1)] = 50_000_000,
    max_images: Annotated[int, typer.Option(min=1)] = 32,
) -> None:
    """Serve a model over HTTP: scores, decisions and maps.

    POST /predict takes multipart files, JSON with base64, or one image. /models, /healthz, /readyz,
    /metrics and /openapi.json describe the server; / is a page on which to try an image.

    Args:
        models: Model folders or exported files, each as PATH or NAME=PATH; the first one is used
            for requests that name none.
        host: Address; one for other machines needs --keys or --no-keys.
        port: Port; 0 = any free one.
        keys: File with API keys, one per line; each request needs one of them.
        no_keys: Accept requests without keys from other machines.
        threshold: Threshold of the decision if a request has none: a rule (eer, fdr5%, bpcer1%) or
            a number.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Largest number of images per forward pass.
        delay: Milliseconds for which a batch waits for images.
        queue: Largest number of images in process; further ones get 429.
        timeout: Seconds after which a request gets 504.
        workers: Threads that decode images.
        max_body: Largest body in MiB.
        max_pixels: Largest number of pixels per image.
        max_images: Largest number of images per request.
    """
    from preceptor.utils.memory import return_freed_memory

    with needing("web", "serve"):
        from preceptor.deploy.api import ServeSettings
        from preceptor.deploy.http import ApiKeys, Hosts, address_of, is_local
        from preceptor.deploy.http_server import listen
        from preceptor.deploy.http_server import serve as serve_until_stopped
        from preceptor.deploy.serve import Service, application, model_paths
    if keys is not None and no_keys:
        raise InputError("--keys and --no-keys: choose one of the two")
    if not is_local(host) and keys is None and not no_keys:
        raise InputError(f"--host {host}: others can reach this server; add --keys or --no-keys")
    known = None if keys is None else ApiKeys.read(keys)
    named = model_paths(models)
    settings = ServeSettings(
        threshold=threshold,
        device=device,
        batch_size=batch_size,
        delay=delay / 1000,
        queue=queue,
        timeout=timeout,
        workers=workers,
        body=max_body * 2**20,
        pixels=max_pixels,
        images=max_images,
    )
    return_freed_memory()
    at = listen(host, port)
    bound = at.getsockname()[1]
    hosts = None if keys is not None or no_keys else Hosts.of(host, bound)
    with bulk_import():
        service = Service(named, settings, known, hosts)
    try:
        print(f"serving {', '.join(service.models)} on {address_of(host, bound)}", flush=True)
        serve_until_stopped(
            application(service), at, stop_seconds=int(timeout) + 5, stopping=service.stop
        )
    finally:
        service.close()
    print("stopped")
