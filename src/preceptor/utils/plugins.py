"""Modules that a config or a model folder names, and model folders."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from preceptor.errors import InputError
from preceptor.utils.results import digest, file_digest


def parents_of(name: str) -> set[str]:
    """A dotted name and those of the packages that contain it."""
    parts = name.split(".")
    return {".".join(parts[: count + 1]) for count in range(len(parts))}


def missing_module(name: str) -> str:
    """What is wrong with a module that is not found, and what to do."""
    return f"there is no module {name} here; install it, or add the folder with it to PYTHONPATH"


def source_digest(target: str) -> str:
    """Hash of the source of a function: its module, and what that imports of the same package."""
    name = target.partition(":")[0]
    top, waiting = name.partition(".")[0], [name]
    digests: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        if module in digests:
            continue
        file = _source(module)
        if file is None:
            if module == name:
                raise InputError(f"{target}: {missing_module(name)}")
            continue
        state = file.stat()
        digests[module], imported = _read(file, module, state.st_size, state.st_mtime_ns)
        waiting += [other for other in imported if other.partition(".")[0] == top]
    return digest(sorted(digests.items()))


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
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = importlib.util.resolve_name("." * node.level + base, package).rstrip(".")
                except ImportError:  # it has no package: this import fails there as well
                    continue
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return set().union(*(parents_of(one) for one in names if one))


# Suffixes of weights that would be unpickled.
_PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar")


def check_model_folder(folder: Path) -> None:
    """Raise InputError if a folder has no model.json; it names the model folder to use."""
    if (folder / "model.json").is_file():
        return
    if folder.is_file():
        raise InputError(f"{folder} is not a model folder: {_form_of(folder)}")
    if not folder.exists():
        raise InputError(f"{folder} is not a model folder: there is no such folder or file")
    models = [one for one in ("best", "model") if (folder / one / "model.json").is_file()]
    fix = f"; name {folder / models[0]}" if models else ""
    raise InputError(f"{folder} is not a model folder: it has no model.json{fix}")


def _form_of(file: Path) -> str:
    """How a model that is a file is given to the commands that take models from elsewhere."""
    where = "preceptor audit and repair take it as"
    if file.suffix.lower() == ".py":
        return f"it is a Python file; {where} {file}:FUNCTION, the function that returns it"
    if file.suffix.lower() == ".onnx":
        return f"it is an ONNX file, which has no features; preceptor audit takes {file}"
    text = f"it is a file; {where} NETWORK:{file.with_suffix('.safetensors')}, such as resnet50:…"
    if file.suffix.lower() in _PICKLED:
        text += ", once it is converted by safetensors.torch.save_file, since nothing is unpickled"
    return text
