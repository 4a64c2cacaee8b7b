"""Options of several commands, and checks of output files.

The choices duplicate those of the configs, since importing a config would slow down `--help`.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer
from typer.core import TyperGroup

from preceptor.errors import InputError
from preceptor.utils.text import argument_descriptions

CamClass = Literal["label", "predicted", "decision"]
Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["local", "ray"]
MapFiles = Literal["overlay", "png"]
Preset = Literal["tiny", "demo", "spots", "full"]
StampPlace = Literal["corner", "moving"]


def finite(value: float | None) -> float | None:
    """Refuse nan and infinity: a range need not exclude nan, which compares as false."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


Number = partial(typer.Option, callback=finite)
"""Option of a number, which is finite."""

ManifestPath = Annotated[Path, typer.Argument(help="CSV or Parquet table of images.")]
DeviceOption = Annotated[Device, typer.Option(help="Device of the model.")]
JobsOption = Annotated[
    int | None, typer.Option(min=1, help="Most concurrent steps (default: as many as fit).")
]
EngineOption = Annotated[
    Engine, typer.Option(help="Executor: local (worker processes) or ray (Ray cluster).")
]
AddressOption = Annotated[
    str | None, typer.Option(help="Address of the Ray cluster; auto: the cluster of this machine.")
]
RunsPerGpuOption = Annotated[
    int | None, typer.Option(min=1, help="Number of runs per GPU (default: 1).")
]
_RULE = "Threshold of the decision: a rule (eer, fdr5%, bpcer1%) or a number"
ThresholdOption = Annotated[str | None, typer.Option(help=_RULE, show_default="eer")]
BatchSizeOption = Annotated[
    int, typer.Option(min=1, help="Largest number of images per forward pass.")
]
HangTimeoutOption = Annotated[
    float, Number(min=0.01, help="Minutes without progress after which a step is killed.")
]


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar; yields the function that receives the number done and the total."""
    from preceptor.utils.text import progress

    with progress() as bar:
        task = bar.add_task(what, total=None, note="")
        yield lambda done, total: bar.update(task, completed=done, total=total)


# Modules of the extras whose commands check for them.
EXTRAS = {
    "web": {"starlette", "uvicorn", "h11", "prometheus_client"},
    "onnx": {"onnx", "onnxruntime", "onnxscript"},
}


@contextlib.contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Context of imports; a missing package of an extra is an InputError that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRAS[extra]:
            raise
        raise InputError(
            f"{what}: {error.name} is not installed; pip install '.[{extra}]' in the source folder"
        ) from error


class Commands(typer.Typer):
    """Commands that describe their parameters in the section Args of their docstrings."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Decorator that registers a command."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            hints = get_type_hints(function, include_extras=True)
            parameters = inspect.signature(function).parameters
            for key, text in argument_descriptions(function.__doc__ or "").items():
                hint = hints[key]
                if not hasattr(hint, "__metadata__"):
                    required = parameters[key].default is inspect.Parameter.empty
                    hint = Annotated[hint, typer.Argument() if required else typer.Option()]
                hint.__metadata__[0].help = text
                function.__annotations__[key] = hint
            text = (inspect.getdoc(function) or "").partition("\nArgs:\n")[0]
            typer.Typer.command(self, name, help=text, **settings)(function)
            return function

        return register


class RunByDefault(TyperGroup):
    """Command group whose default command is `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `run` if the first argument is not a command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


MANIFEST_FORMATS = (".csv", ".parquet", ".pq")
PARQUET_FORMATS = (".parquet", ".pq")
CONFIG_FORMATS = (".yaml", ".yml")


def check_suffix(option: str, path: Path, formats: Collection[str]) -> None:
    """Refuse an output whose suffix is that of no format, before anything is read."""
    if path.suffix.lower() not in formats:
        raise InputError(f"{option} {path}: unknown format; name it {', '.join(formats)}")


def check_target(
    option: str,
    path: Path,
    *,
    replace: bool = False,
    copied: Path | None = None,
    formats: Collection[str] = (),
) -> None:
    """Refuse an output that cannot be written, before its content is computed.

    `replace`: a file that exists is replaced; `copied`: a folder of which the output is a copy.
    """
    if formats:
        check_suffix(option, path, formats)
    folder, problem = path.parent, ""
    if path.is_dir() or (path.exists() and not replace):
        problem = " exists already; choose another name"
    elif not folder.is_dir():
        problem = f": folder {folder} does not exist; create it first"
    elif not os.access(folder, os.W_OK):
        problem = f": folder {folder} cannot be written; choose another one"
    elif copied is not None and copied.resolve() in path.resolve().parents:
        problem = f" is inside {copied}, which is copied; choose a place outside"
    if problem:
        raise InputError(f"{option} {path}{problem}")
