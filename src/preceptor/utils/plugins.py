"""Plugins of installed packages, and modules that a config or a model folder names."""

from __future__ import annotations

import ast
import importlib.util
import sys
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from preceptor.errors import InputError, reason
from preceptor.utils.results import digest, file_digest


def parents_of(name: str) -> set[str]:
    """A dotted name and those of the packages that contain it.

    Example:
        >>> sorted(parents_of("a.b.c"))
        ['a', 'a.b', 'a.b.c']
    """
    parts = name.split(".")
    return {".".join(parts[: count + 1]) for count in range(len(parts))}


def missing_module(name: str) -> str:
    """What is wrong with a module that is not found, and what to do."""
    top = name.partition(".")[0]
    if Path(f"{top}.py").is_file() or Path(top, "__init__.py").is_file():
        return (
            f"there is no module {name} here, and {top} is in the current folder, which Python "
            "does not search; write PYTHONPATH=. before the command"
        )
    return f"there is no module {name} here; install it, or add the folder with it to PYTHONPATH"


Group = Literal[
    "preceptor.backbones",
    "preceptor.controls",
    "preceptor.distances",
    "preceptor.importers",
    "preceptor.map_sources",
    "preceptor.saliency",
]
"""Entry points: factories of networks, controls of a study, distances of maps, readers of
annotations, maps of training images without a model, saliency methods of a model."""

GROUPS: tuple[Group, ...] = get_args(Group)


def registered(group: Group) -> dict[str, list[EntryPoint]]:
    """Entry points of a group by name, several where packages offer the same name."""
    found: dict[str, list[EntryPoint]] = {}
    for one in _offered(group, tuple(sys.path)):
        same = found.setdefault(one.name, [])
        if one.value not in [other.value for other in same]:  # a package may be seen twice
            same.append(one)
    return dict(sorted(found.items()))


def plugin(group: Group, name: str) -> EntryPoint | None:
    """Entry point of this name; None = there is none.

    Raises:
        InputError: Several packages offer the name.
    """
    found = registered(group).get(name, [])
    if len(found) > 1:
        offered = " and ".join(sorted(f"{_package(one)} ({one.value})" for one in found))
        raise InputError(f"{name}: {offered} both offer it in {group}; uninstall one of them")
    return found[0] if found else None


def installed_plugin(group: Group, name: str, key: str) -> EntryPoint:
    """Entry point of this name.

    Args:
        group: Group of entry points.
        key: What the name is in a config, for the message.

    Raises:
        InputError: No package, or several packages, offer the name.
    """
    found = plugin(group, name)
    if found is None:
        raise InputError(f"{key} {name} is of a package that is not installed; install it")
    return found


def load_plugin(found: EntryPoint) -> Any:
    """Object that an entry point names.

    Raises:
        InputError: It cannot be imported.
    """
    try:
        return found.load()
    except Exception as error:  # a module may raise anything when it is imported
        raise InputError(
            f"{found.name}: the plugin {found.value} of {_package(found)} cannot be imported: "
            f"{reason(error, 200)}; update or uninstall it"
        ) from error


@lru_cache(len(GROUPS))
def _offered(group: Group, folders: tuple[str, ...]) -> EntryPoints:
    """Entry points of the packages in the folders of `sys.path`.

    They are kept: reading the metadata of hundreds of packages takes milliseconds, and a report
    asks for each row.
    """
    return entry_points(group=group)


def _package(found: EntryPoint) -> str:
    return "an unknown package" if found.dist is None else found.dist.name


def source_digest(target: str) -> str:
    """Hash of the source of a function: its module, and what that imports of the same package.

    Args:
        target: The function, as package.module:function.

    Raises:
        InputError: The module is not found, or has no source.
    """
    name = target.partition(":")[0]
    top, waiting = name.partition(".")[0], [name]
    found: dict[str, str] = {}
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        file = _source(one)
        if file is None:
            if one == name:
                raise InputError(f"{target}: {missing_module(name)}")
            continue
        state = file.stat()
        found[one], imported = _read(file, one, state.st_size, state.st_mtime_ns)
        waiting += [other for other in imported if other.partition(".")[0] == top]
    return digest(sorted(found.items()))


def _source(name: str) -> Path | None:
    """Source file of a module, which is not imported (its parent packages are)."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    file = None if spec is None or spec.origin is None else Path(spec.origin)
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


@cache
def _read(file: Path, name: str, size: int, changed: int) -> tuple[str, set[str]]:
    """Hash and imports of a source file, which is read again if its size or time changes."""
    return file_digest(file), _imports(file, name)


def _imports(file: Path, name: str) -> set[str]:
    """Names of the modules that a source file may import, and of their parent packages."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return set().union(*(parents_of(one) for one in found if one))


# Model folders within the folder of a study, and of a run.
_INSIDE = ("best", "model")


def check_model_folder(folder: Path) -> None:
    """Check that a folder is a model folder; its files are not read.

    Raises:
        InputError: It has no model.json.
    """
    if not (folder / "model.json").is_file():
        inside = (folder / name for name in _INSIDE)
        found = next((one for one in inside if (one / "model.json").is_file()), None)
        fix = "" if found is None else f"; name {found}"
        raise InputError(f"{folder} is not a model folder: it has no model.json{fix}")
