"""Command-line options shared by several commands.

The choices repeat those of the configs: importing a config here would slow down `--help`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Cache = Literal["memmap", "none"]
Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["local", "ray"]
Method = Literal["cam", "rise"]
Preset = Literal["tiny", "demo", "full"]
RunState = Literal["finished", "begun", "waiting"]

CacheDirOption = Annotated[
    Path | None, typer.Option("--cache-dir", help="Folder of image caches.", show_default=False)
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        help="Maximum number of concurrent steps (default: as many as fit).", show_default=False
    ),
]
EngineOption = Annotated[
    Engine, typer.Option(help="Executor: processes of this machine, or a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster, or auto for this machine's (with --engine ray).",
        show_default=False,
    ),
]
RunsPerGpuOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of runs that share a GPU (default: by measured memory).",
        show_default=False,
    ),
]
HangTimeoutOption = Annotated[
    float, typer.Option(min=0.01, help="Minutes without progress after which a step is killed.")
]
