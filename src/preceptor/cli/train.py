"""Command `preceptor train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import CacheDirOption


def train(
    config: Annotated[Path, typer.Argument(help="Config of the run (YAML).")],
    out: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    cache_dir: CacheDirOption = None,
) -> None:
    """Train one model.

    The same command resumes an interrupted training.
    """
    from preceptor.config.files import load_config
    from preceptor.config.run import RunConfig
    from preceptor.errors import InputError

    settings = load_config(config, RunConfig)
    outside = settings.training.augmentation.outside
    if outside != "none" and settings.maps.kind == "none":
        raise InputError(
            f"{config}: training.augmentation.outside is {outside}, which needs maps, and "
            "maps.kind is none; set maps, or remove outside"
        )
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.data.workspace import Workspace
        from preceptor.training.prepare import image_formats
        from preceptor.training.run import train as train_run
        from preceptor.utils.memory import keep_freed_memory

    keep_freed_memory()
    workspace = Workspace.open(
        settings.manifest, cache_dir, verify=True, formats=image_formats(settings)
    )
    result = train_run(settings, out, workspace=workspace, tell=print)
    print(f"run {result.folder}")
