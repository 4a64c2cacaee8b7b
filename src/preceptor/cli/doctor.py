"""Command `preceptor doctor`: what is installed, what is wrong, and what to do.

Nothing that may be missing or broken is imported at the top, so that its state can be described.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import typer

from preceptor.errors import Problem, reason
from preceptor.utils.process import bulk_import, core_count

LEAST_DISK = 10 * 2**30  # bytes: one study with caches, maps and weights
# Where the module is not called as the distribution is.
_MODULES = {"pyyaml": "yaml", "pillow": "PIL"}
# Extras for the development of the library, and for its examples.
_DEVELOPMENT = {"dev", "bench", "docs", "integrations"}
_WIDTH, _NAME = 80, 20


@dataclass
class Installation:
    """State of an installation: what is broken prevents training, notes do not."""

    values: list[tuple[str, str]] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def doctor() -> None:
    """Check the installation, and say how to solve its problems.

    The output has versions, optional extras, devices and disk space. The exit code is 1 if
    something that training needs is broken.
    """
    from preceptor.version import __version__

    with bulk_import():
        state = inspect_installation()
    print(f"preceptor {__version__}, Python {platform.python_version()}, ", end="")
    print(f"{platform.platform(terse=True)}\n")
    print("\n".join(lines_of(state)))
    if state.broken:
        raise typer.Exit(1)


def lines_of(state: Installation) -> Iterator[str]:
    """State of an installation in lines of at most 80 characters, problems last."""

    def wrapped(text: str, indent: int) -> list[str]:
        after = " " * indent
        return textwrap.wrap(text, _WIDTH, subsequent_indent=after, break_on_hyphens=False)

    for name, value in state.values:
        yield from wrapped(f"{name:<{_NAME}}{value}", _NAME)
    yield ""
    for kind, problems in (("broken", state.broken), ("note", state.notes)):
        for one in problems:
            yield from wrapped(f"{kind}: {one.where}: {one.what}", len(kind) + 2)
            yield from wrapped(f"{' ' * (len(kind) + 2)}what to do: {one.fix}", len(kind) + 2)
    works = "Training works here."
    yield "Something that training needs is broken." if state.broken else works


def inspect_installation() -> Installation:
    """State of this installation."""
    from preceptor.utils.files import default_cache_dir

    state = Installation()
    try:
        _inspect_packages(state)
    except importlib.metadata.PackageNotFoundError:
        what = "is not installed, only on Python's path"
        state.broken.append(Problem("preceptor", what, "pip install its folder"))
    if not state.broken:
        _inspect_devices(state)
    inspect_folder(state, "current folder", Path.cwd(), "set --out to another folder")
    fix = "set PRECEPTOR_CACHE to another one"
    inspect_folder(state, "image caches", default_cache_dir(), fix)
    return state


def _inspect_packages(state: Installation) -> None:
    """Import every required package, and look for those of the extras (PEP 508)."""
    from packaging.requirements import Requirement

    record = importlib.metadata.metadata("preceptor")
    needed = [Requirement(one) for one in record.get_all("Requires-Dist") or []]
    for one in needed:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        version, install = _version(one.name), f"pip install '{one.name}{one.specifier}'"
        what = ""
        if version is None:
            what = "is not installed"
        elif error := _import_error(one.name):
            what, install = f"cannot be imported: {error}", f"{install} --force-reinstall"
            if one.name in ("torch", "torchvision"):
                install = "install torch and torchvision of one release together, see pytorch.org"
        elif not one.specifier.contains(version, prereleases=True):
            what = f"version {version} is not {one.specifier}"
        if what:
            state.broken.append(Problem(one.name, what, install))
        value = f"{version or 'not installed'} ({one.specifier} is needed)"
        state.values.append((one.name, value))
    for name in sorted({*(record.get_all("Provides-Extra") or [])} - _DEVELOPMENT):
        extra = [one for one in needed if one.marker and one.marker.evaluate({"extra": name})]
        missing = [
            one.name
            for one in extra
            if (version := _version(one.name)) is None
            or not one.specifier.contains(version, prereleases=True)
        ]
        install = f"pip install '.[{name}]' in the source folder"
        value = f"without {', '.join(missing)}: {install}" if missing else "installed"
        state.values.append((f"extra {name}", value))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_error(name: str) -> str:
    """Reason why a package cannot be imported, or ""."""
    try:
        importlib.import_module(_MODULES.get(name.lower(), name.lower().replace("-", "_")))
    except Exception as error:  # a library without its own libraries raises many things
        return reason(error)
    return ""


def _inspect_devices(state: Installation) -> None:
    """Cores and GPUs; each GPU computes something."""
    import torch

    from preceptor.utils.text import gibibytes

    cores, cuda = core_count(), torch.version.cuda
    cpu = f"{cores} core{'s' if cores != 1 else ''}, {torch.backends.cpu.get_cpu_capability()}"
    state.values.append(("CPU", cpu))
    gpus, error = [], ""
    try:
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            free, memory = torch.cuda.mem_get_info(index)
            torch.ones(1, device=f"cuda:{index}").sum().item()
            sizes = f"{gibibytes(memory)}, {gibibytes(free)} free"
            gpus.append(f"{torch.cuda.get_device_name(index)}, {sizes}, CUDA {cuda}")
    except RuntimeError as wrong:
        error = reason(wrong)
    state.values += [("GPU", gpu) for gpu in gpus or ["none; training uses the CPU"]]
    if not gpus and not error and Path("/dev/nvidia0").exists():
        built = "without CUDA" if cuda is None else f"for CUDA {cuda}"
        error = f"there is a GPU, which torch (built {built}) cannot use"
    if error:
        state.notes.append(Problem("GPU", error, "training uses the CPU; see pytorch.org"))


def inspect_folder(state: Installation, use: str, path: Path, fix: str) -> None:
    """Free space of a folder, and whether files can be written, linked and renamed in it."""
    from preceptor.utils.text import gibibytes

    there = path
    while not there.is_dir() and there != there.parent:
        there = there.parent
    free, error = shutil.disk_usage(there).free, ""
    state.values.append((use, f"{gibibytes(free)} free, {path}"))
    try:
        with tempfile.TemporaryDirectory(prefix=".preceptor-", dir=there) as inside:
            one, two = Path(inside, "one"), Path(inside, "two")
            one.write_bytes(b"")
            try:
                os.link(one, two)
                two.replace(one)
            except OSError:
                error = "no hard links or renames, which the leases of a study need"
    except OSError as wrong:
        error = f"cannot be written to: {wrong.strerror}"
    if not error and free < LEAST_DISK:
        error = f"{gibibytes(free)} are free"
        fix = f"free {gibibytes(LEAST_DISK)} for a study, or use another folder"
    if error:
        state.notes.append(Problem(use, f"{path}: {error}", fix))
