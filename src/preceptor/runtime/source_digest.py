"""Hash of the source of a function that a config names."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from preceptor.errors import InputError
from preceptor.runtime.checksums import file_digest
from preceptor.runtime.module_names import missing_module, parents_of
from preceptor.runtime.result_folder import digest


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
