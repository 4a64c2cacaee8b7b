"""Commands of one model: train, annotate, evaluate, predict, calibrate, export, serve."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli.options import (
    PARQUET_FORMATS,
    BatchSizeOption,
    CamClass,
    DeviceOption,
    ManifestPath,
    MapFiles,
    ThresholdOption,
    check_target,
    needing,
)
from preceptor.errors import InputError, PreceptorError, one_line, without_secrets
from preceptor.utils.process import bulk_import, core_count
from preceptor.utils.results import check_model_folder

# Bad images that are named on standard error; all are in the output.
_NAMED = 20


def train(config: Path, out: Path = Path("runs")) -> None:
    """Train one model.

    The same command resumes an interrupted training.

    Args:
        config: Config of the run (YAML).
        out: Folder for run folders.
    """
    from preceptor.config.files import load_config
    from preceptor.config.run import RunConfig

    settings = load_config(config, RunConfig)
    outside = settings.training.augmentation.outside
    if outside != "none" and settings.maps.kind == "none":
        raise InputError(
            f"{config}: training.augmentation.outside is {outside}, which needs maps, and "
            "maps.kind is none; set maps, or remove outside"
        )
    with bulk_import():
        from preceptor.data.workspace import Workspace
        from preceptor.training.prepare import image_formats
        from preceptor.training.run import train as train_run
        from preceptor.utils.process import keep_freed_memory

    keep_freed_memory()
    workspace = Workspace.open(settings.manifest, verify=True, formats=image_formats(settings))
    result = train_run(settings, out, workspace=workspace, tell=print)
    print(f"run {result.folder}")


def annotate(
    model: Path,
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option()],
    method: str = "cam",
    split: str = "train",
    map_of: CamClass = "label",
    max_masks: Annotated[int, typer.Option(min=2, max=10_000_000)] = 8000,
    device: DeviceOption = "auto",
) -> None:
    """Make saliency maps with a Teacher.

    The maps are written to a map store. The same command resumes an interrupted run.

    Args:
        model: Model folder of the Teacher.
        out: Folder of the map store.
        method: Method: cam (CAM or Grad-CAM), rise, or cells (of a mapper).
        split: Images: train, all, or the name of a split.
        map_of: Map of the label, of the predicted class, or (with cam) a decision map, for Teachers
            that were trained with decision maps.
        max_masks: Maximum number of RISE masks per image.
    """
    from preceptor.config.run import RiseSettings, check_method

    check_method(method)
    check_model_folder(model)
    with bulk_import():
        from preceptor.inference.annotate import annotate_in_shards, maps_record

    store = annotate_in_shards(
        model,
        manifest,
        out,
        method,
        splits=split,
        cam_class=map_of,
        rise=RiseSettings(max_masks=max_masks),
        threads=core_count(),
        device=device,
    )
    rows, columns = store.maps.shape[1:3]
    print(f"wrote {len(store.paths):,} maps of {rows} × {columns} to {out}")
    if record := maps_record(store):
        print(
            f"{record['masks'] / len(store.paths):,.0f} forward passes per image; "
            f"{record['unsettled']:,} maps did not reach the tolerance and will not guide"
        )


def evaluate(
    model: Path,
    manifest: ManifestPath,
    against: Path | None = None,
    threshold: Annotated[str | None, typer.Option(show_default="eer")] = None,
    terms: Literal["pad", "medical", "generic"] = "generic",
    out: Path | None = None,
) -> None:
    """Evaluate a model on a manifest.

    The output has AUC, EER, error rates and other metrics, by evaluation set and source.

    Args:
        model: Model folder.
        against: Second model folder: compare AUCs by DeLong's test on each set.
        threshold: Rule of the decision threshold, fixed on validation: eer, fdr5% or bpcer1%.
        terms: Names of the error rates.
        out: Output Parquet file of the scores; may replace an older score table.
    """
    with bulk_import():
        from preceptor.cli.output import print_comparison, print_figures, print_rates
        from preceptor.data.manifest import Manifest
        from preceptor.data.workspace import Workspace
        from preceptor.deploy.network import CALIBRATION
        from preceptor.inference.predict import check_comparable, score_sets
        from preceptor.metrics.operating_points import known_threshold, normal_rule
        from preceptor.metrics.scores import check_score_file, compare_sets, figures, write_scores
        from preceptor.models.build import load_model

    if out is not None:
        check_target("--out", out, replace=True, formats=PARQUET_FORMATS)
        check_score_file(out)
    loaded, names = load_model(model), (str(model), str(against))
    spec = loaded.spec
    rule, fixed = "eer" if threshold is None else normal_rule(threshold), None
    if threshold is not None or rule in spec.thresholds:
        fixed = known_threshold(rule, spec.thresholds, str(model))
    other = None if against is None else load_model(against)
    if other is not None:
        check_comparable(loaded, other, names)
    table = Manifest.read(manifest, verify=False, need=(), classes=spec.classes)
    if not table.eval_splits("val") + table.eval_splits("test"):
        raise InputError(f"{manifest}: no row has a val or test split; assign some rows to one")
    workspace = Workspace(table)
    scores = score_sets(loaded, workspace)
    if out is not None:
        write_scores(scores, out)
    for folder in (model, against):
        if folder is not None and (folder / CALIBRATION).is_file():
            print(f"note: the scores of {folder} are those before its calibration")
    print_figures(figures(scores, spec.classes, spec.positive), spec.classes)
    if spec.positive is not None:
        print_rates(scores, spec.classes, spec.positive, rule, fixed, terms)
        if other is not None:
            theirs = score_sets(other, workspace)
            compared = compare_sets(scores, theirs, spec.classes, spec.positive)
            print_comparison(compared, names)


def predict(
    model: Path,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...")],
    out: Annotated[Path | None, typer.Option(show_default="CSV on standard output")] = None,
    maps: MapFiles | None = None,
    threshold: ThresholdOption = None,
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = 32,
) -> None:
    """Predict images with a trained model.

    The table has the decision, the score and all probabilities of each image, in the order of the
    inputs. Images that cannot be read have the reason in the column error, and the exit code is 1.

    Args:
        model: Model folder, such as best.
        inputs: Image files and folders.
        out: Output table: .csv.
        maps: Maps to write, in the folder NAME-maps beside the output: overlay (over the image) or
            png (grayscale, size of the image).
    """
    with bulk_import():
        from preceptor.deploy import predict_files as files
        from preceptor.deploy.predictor import load
        from preceptor.utils.text import progress

    output = None
    if maps is not None and out is None:
        raise InputError("maps need an output; add --out FILE")
    if out is not None:
        check_target("--out", out, formats=files.FORMATS)
        if maps is not None:
            folder = out.with_name(f"{out.stem}-maps")
            check_target("--maps", folder)
            output = files.MapOutput(maps, folder)
    images = files.ImageList(inputs)
    with bulk_import():
        predictor = load(model, threshold=threshold, device=device, batch_size=batch_size)
    numbers = count(1)

    def report_bad(name: str, reason: str) -> None:
        if next(numbers) <= _NAMED:
            print(f"bad image: {one_line(without_secrets(name))}: {reason}", file=sys.stderr)

    if out is None:
        result = files.predict_files(predictor, images, sys.stdout, report_bad=report_bad)
    else:
        with progress() as bar:
            task = bar.add_task("predicting", total=len(images), note="")
            result = files.predict_files(
                predictor, images, out, maps=output,
                advance=lambda done: bar.advance(task, done), report_bad=report_bad,
            )  # fmt: skip
        counts = [f"{name} {result.decisions[name]:,}" for name in predictor.info.classes]
        total = result.decisions.total() + result.bad
        print(f"wrote {out}: {total:,} images ({', '.join(counts)})")
        if output is not None:
            print(f"maps {output.folder}")
    if result.bad:
        total = result.decisions.total() + result.bad
        where = "" if out is None else f"; the column error of {out} has the reasons"
        raise PreceptorError(f"{result.bad:,} of {total:,} images could not be read{where}")


def calibrate(
    model: Path,
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option()],
    device: DeviceOption = "auto",
) -> None:
    """Calibrate a model on the validation images of a manifest.

    The output is a copy of the model folder with calibrated probabilities. Its model card has the
    results.

    Args:
        model: Model folder, such as best.
        out: Output folder: a copy of the model folder.
    """
    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.deploy import calibrate as steps
        from preceptor.deploy.network import calibrated_info
        from preceptor.deploy.predictor import load
        from preceptor.utils.text import progress

    steps.check_uncalibrated(model)
    check_target("--out", out, copied=model)
    predictor = load(model, device=device)
    classes = predictor.info.classes
    table = Manifest.read(manifest, verify=False, need=("val",), classes=classes)
    with progress() as bar:
        task = bar.add_task("validation images", total=None, note="")
        fitted = steps.calibrate(predictor, table, lambda count: bar.advance(task, count))
    info = calibrated_info(predictor.info, fitted.calibration)
    steps.write_calibrated(model, fitted, info, out)
    print(*steps.calibration_sentences(fitted), sep="\n")
    print(f"wrote {out}")


def export(
    model: Path,
    out: Annotated[Path, typer.Option()],
    threshold: ThresholdOption = None,
    map_: Annotated[bool, typer.Option("--map/--no-map")] = True,
) -> None:
    """Export a model folder to an ONNX file for use without this library.

    The file contains pre-processing, decision and map. It is kept only if its outputs on generated
    images equal those of the model.

    Args:
        model: Model folder.
        out: Output file: .onnx.
        map_: Whether the file computes maps.
    """
    check_model_folder(model)
    with bulk_import():
        from preceptor.deploy import export as onnx
        from preceptor.utils.text import threshold_text

    check_target("--out", out, formats=onnx.SUFFIXES)
    with needing("onnx", "export"):
        parity, limit = onnx.export_model(model, out, threshold=threshold, maps=map_)
    rule = "the most probable class"
    if limit is not None:
        rule = f"positive at a score of {threshold_text(limit)} or more"
    maps = "" if parity.maps is None else f", of a map {parity.maps:.1e}"
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB")
    print("input: uint8, any batch size")
    print(f"decision: {rule}")
    print(
        f"largest difference of a probability {parity.probabilities:.1e}{maps} on "
        f"{parity.images:,} generated images"
    )


def serve(
    model: Path,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    keys: Path | None = None,
    no_keys: Annotated[bool, typer.Option("--no-keys")] = False,
    threshold: ThresholdOption = None,
    device: str = "auto",
    batch_size: BatchSizeOption = 32,
) -> None:
    """Serve a model over HTTP: scores, decisions and maps.

    POST /predict takes an image file. /model, /healthz, /readyz and /metrics describe the server.

    Args:
        model: Model folder, such as best.
        host: Address; one for other machines needs --keys or --no-keys.
        port: Port; 0 = any free one.
        keys: File with API keys, one per line; each request needs one of them.
        no_keys: Accept requests without keys from other machines.
        device: auto, cpu, cuda or cuda:N.
    """
    from preceptor.utils.process import return_freed_memory

    with needing("web", "serve"):
        from preceptor.deploy.http import ApiKeys, Hosts, address_of, is_local
        from preceptor.deploy.http_server import listen
        from preceptor.deploy.http_server import serve as serve_until_stopped
        from preceptor.deploy.serve import ServeSettings, Service, application
    if keys is not None and no_keys:
        raise InputError("--keys and --no-keys: choose one of the two")
    if not is_local(host) and keys is None and not no_keys:
        raise InputError(f"--host {host}: others can reach this server; add --keys or --no-keys")
    known = None if keys is None else ApiKeys.read(keys)
    settings = ServeSettings(threshold, device, batch_size)
    return_freed_memory()
    at = listen(host, port)
    bound = at.getsockname()[1]
    hosts = None if keys is not None or no_keys else Hosts.of(host, bound)
    with bulk_import():
        service = Service(model, settings, known, hosts)
    try:
        print(f"serving {model} on {address_of(host, bound)}", flush=True)
        stop_seconds = int(settings.timeout) + 5
        serve_until_stopped(
            application(service), at, stop_seconds=stop_seconds, stopping=service.stop
        )
    finally:
        service.close()
    print("stopped")
