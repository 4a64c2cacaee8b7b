"""The command `preceptor`: its commands, and its errors.

The modules of commands import torch only inside functions, so that `--help` is fast.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from preceptor.cli import model
from preceptor.cli.auditing import audit, repair
from preceptor.cli.data import data
from preceptor.cli.demo import demo
from preceptor.cli.doctor import doctor
from preceptor.cli.label import label
from preceptor.cli.options import Commands
from preceptor.cli.study import report, study
from preceptor.errors import PreceptorError, one_line
from preceptor.utils.process import handling, out_of_memory

# The commands of the first page of help; those that a newcomer needs come first in each section.
SECTIONS = {
    "First steps": ("demo", "doctor"),
    "Data and marks": ("data import", "data check", "label", "data"),
    "Study": ("study init", "study", "report"),
    "Model": (
        "audit", "repair", "predict", "export", "serve", "calibrate", "evaluate",
        "annotate", "train",
    ),
}  # fmt: skip


class FirstPage(TyperGroup):
    """Command group whose help has the commands by section."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._summary(name)) for name in names])

    def _summary(self, name: str) -> str:
        """First sentence of the help of a command, such as `data check`."""
        command: Any = self
        for part in name.split():
            command = command.commands[part]
        return str(command.get_short_help_str(limit=200))


app = Commands(
    cls=FirstPage,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from preceptor.version import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Train image classifiers with human guidance on where to look, and test whether it helps."""


app.add_typer(data, name="data")
app.add_typer(study, name="study")
app.add_typer(label, name="label")
_OF_MODELS = (model.train, model.annotate, model.evaluate, model.export)
_IN_USE = (model.serve, model.predict, model.calibrate)
for _command in (*_OF_MODELS, *_IN_USE, audit, repair, report, demo, doctor):
    app.command()(_command)

_TERMINATED = 128 + signal.SIGTERM
_RESUME = "repeat the command; studies, trainings and map stores resume"


def main() -> None:
    """Entry point: run a command with exit code 0, 1 (failed) or 2 (invalid input).

    An interruption (Ctrl-C) has exit code 130, and SIGTERM 143.
    """
    # A terminal may lack letters, and the names of files need not be UTF-8: both are escaped.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Notes on odd headers and large images would stand between the lines of results.
    warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.|pydicom\.")
    with reported_errors(), _ended_by_sigterm():
        command()(prog_name="preceptor")


@cache
def command() -> Callable[..., Any]:
    """Tree of all commands; typer reads their signatures, which takes 0.1 s, once in a process."""
    return typer.main.get_command(app)


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Print an expected error in one line, and exit with its code."""
    try:
        yield
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"interrupted; {_RESUME}", file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        if stop.code in (130, _TERMINATED):  # 130 is typer's for an interruption
            word = "interrupted" if stop.code == 130 else "terminated"
            print(f"{word}; {_RESUME}", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {one_line(f'{where}{error.strerror or error}')}", file=sys.stderr)
        # Errors of an invalid path; all others (a full disk) are failures.
        kinds = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
        wrong = isinstance(error, (*kinds, PermissionError))
        sys.exit(2 if wrong or error.errno in (errno.EROFS, errno.ENAMETOOLONG) else 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        fix = "lower training.input_size or batch_size, or use a machine with more memory"
        print(f"error: out of memory; {fix}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Context in which SIGTERM ends the command as Ctrl-C does: files and leases are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling((signal.SIGTERM,), lambda *_: sys.exit(_TERMINATED)):
        yield
