"""Command `preceptor annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import (
    AddressOption,
    CacheDirOption,
    CacheOption,
    Device,
    EngineOption,
    HangTimeoutOption,
    JobsOption,
    ManifestPath,
    RunsPerGpuOption,
    finite,
)
from preceptor.errors import InputError
from preceptor.utils.plugins import check_model_folder
from preceptor.utils.process import RUN_THREADS


def _known_method(name: str) -> str:
    from preceptor.config.maps import check_method

    try:
        check_method(name)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def annotate(
    model: Annotated[Path, typer.Argument(help="Model folder of the Teacher.")],
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option(help="Folder of the map store.")],
    method: Annotated[
        str,
        typer.Option(
            help="Method: cam (CAM or Grad-CAM), rise, cells (of a mapper), or a plugin's name.",
            callback=_known_method,
        ),
    ] = "cam",
    split: Annotated[
        str, typer.Option(help="Images: train, all, or the name of a split.")
    ] = "train",
    max_masks: Annotated[
        int,
        typer.Option(min=2, max=10_000_000, help="Maximum number of RISE masks per image."),
    ] = 8000,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, max=0.99, help="Largest error of a RISE map that may guide.", callback=finite
        ),
    ] = 0.05,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads of each concurrent step.")
    ] = RUN_THREADS,
    device: Annotated[Device, typer.Option(help="Device of the model.")] = "auto",
    engine: EngineOption = "local",
    jobs: JobsOption = None,
    runs_per_gpu: RunsPerGpuOption = None,
    address: AddressOption = None,
    hang_timeout: HangTimeoutOption = 30.0,
    cache_dir: CacheDirOption = None,
    cache: CacheOption = "memmap",
) -> None:
    """Make saliency maps with a Teacher.

    The maps are written as a map store. The same command resumes an interrupted one.
    """
    from preceptor.utils.process import bulk_import

    check_model_folder(model)
    with bulk_import():
        from preceptor.config.maps import RiseSettings
        from preceptor.execution.executors import ExecutorOptions
        from preceptor.execution.make_maps import annotate_in_shards
        from preceptor.inference.annotate import maps_record

    store = annotate_in_shards(
        model,
        manifest,
        out,
        method,
        splits=split,
        cache=cache,
        cache_dir=cache_dir,
        rise=RiseSettings(max_masks=max_masks, tolerance=tolerance),
        threads=threads,
        device=device,
        options=ExecutorOptions(engine, jobs, runs_per_gpu, address, hang_timeout),
    )
    print(
        f"wrote {len(store.paths):,} maps of {store.maps.shape[1]} × {store.maps.shape[2]} to {out}"
    )
    if record := maps_record(store):
        print(
            f"{record['masks'] / len(store.paths):,.0f} forward passes per image; "
            f"{record['unsettled']:,} maps did not reach the tolerance and will not guide"
        )
