"""Command-line options shared by several commands.

The choices duplicate those of the configs, since importing a config would slow down `--help`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

CalibrationMethod = Literal["temperature", "isotonic", "none"]
Cache = Literal["memmap", "none"]
Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["local", "ray"]
InputType = Literal["uint8", "float32"]
LabelOrder = Literal["random", "source"]
MapFiles = Literal["overlay", "png"]
MarkKind = Literal["stamp", "border", "tint"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Proposals = Literal["first", "after", "never"]
Preset = Literal["tiny", "small", "demo", "spots", "full"]
StampPlace = Literal["corner", "moving"]
RunState = Literal["finished", "begun", "waiting"]


def finite(value: float | None) -> float | None:
    """Check a number: a range need not exclude nan, which compares as false.

    Raises:
        typer.BadParameter: It is nan or infinite.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


ManifestPath = Annotated[Path, typer.Argument(help="CSV or Parquet table of images.")]
CacheOption = Annotated[
    Cache,
    typer.Option(help="Cache of decoded images: memmap (memory-mapped file) or none (no cache)."),
]
CacheDirOption = Annotated[
    Path | None, typer.Option("--cache-dir", help="Folder of the image caches.", show_default=False)
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        help="Maximum number of concurrent steps (default: as many as fit).", show_default=False
    ),
]
EngineOption = Annotated[
    Engine, typer.Option(help="Executor: local (worker processes) or ray (Ray cluster).")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster; auto: the cluster of this machine.",
        show_default=False,
    ),
]
RunsPerGpuOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of runs per GPU (default: by measured memory).",
        show_default=False,
    ),
]
HangTimeoutOption = Annotated[
    float,
    typer.Option(
        min=0.01,
        help="Minutes without progress after which a step is killed.",
        callback=finite,
    ),
]


class RunByDefault(TyperGroup):
    """Command group whose default command is `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `run` if the first argument is not a command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)
