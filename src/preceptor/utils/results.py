"""Folders of results and models: record, checksums, scores; hashes of code; JSON without NaN."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import math
import stat
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preceptor.errors import InputError
from preceptor.utils.files import replacing

if TYPE_CHECKING:
    import pandas as pd


def strict_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON text of a value, with null for non-finite numbers."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def with_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    """Inverse of `strict_json` for numbers: NaN for null."""
    return {key: math.nan if value is None else value for key, value in values.items()}


CHECKSUMS = "checksums.json"  # of other files of its folder
SCORES = "scores.parquet"  # of a finished run or evaluation
DIGEST_BYTES = 16  # of the hashes of files


def content_hash(content: bytes) -> bytes:
    """BLAKE2b hash of bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def file_digest(path: Path) -> str:
    """Hexadecimal `content_hash` of a file, which is read in blocks."""
    with path.open("rb") as file:
        hashed = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES))
    return hashed.hexdigest()


def files_that_differ(folder: Path, checksums: Mapping[str, Any]) -> list[str]:
    """Files that are missing or do not match their checksums; raises OSError if unknown."""
    different = []
    for name, checksum in checksums.items():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if file_digest(folder / name) == str(checksum):
                continue
        different.append(name)
    return different


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write `checksums.json` with the checksums of files of a folder."""
    values = {name: file_digest(folder / name) for name in names}
    write_atomically(folder / CHECKSUMS, json.dumps(values, indent=2) + "\n")


def read_checksums(folder: Path) -> dict[str, str]:
    """Checksums of the files of a folder; {} if it has none, InputError if they are damaged."""
    file = folder / CHECKSUMS
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):  # errors of JSON and of UTF-8
        values = None
    if not isinstance(values, dict) or not values:
        raise InputError(f"{file}: damaged; copy the folder again")
    return {str(name): str(value) for name, value in values.items()}


def digest(value: Any) -> str:
    """Short hash of a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether a folder contains the finished result of a run or another step."""
    # Not Path.is_file, which is False also if the disk does not answer.
    try:
        return stat.S_ISREG((folder / "run.json").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def finish(folder: Path, record: dict[str, Any], *, without: str = "") -> None:
    """Finish a result folder: write `run.json` with the checksums of all other files."""
    files = {
        file.relative_to(folder).as_posix(): file_digest(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name[0] != "." and file.name not in (without, "run.json")
    }
    write_atomically(folder / "run.json", strict_json(record | {"files": files}) + "\n")


def damaged_files(folder: Path) -> list[str]:
    """Files of a finished run that are missing or do not match their checksums."""
    try:
        files = dict(read_record(folder)["files"])
    except (FileNotFoundError, InputError, KeyError, TypeError, ValueError):
        return ["run.json"]
    return files_that_differ(folder, files)


def read_record(folder: Path) -> dict[str, Any]:
    """Content of `run.json`, with NaN for metrics that are null; InputError if it is damaged."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError:  # errors of JSON and of UTF-8
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{folder / 'run.json'}: damaged; remove the folder and run it again")
    if isinstance(record.get("metrics"), dict):
        record["metrics"] = with_nan(record["metrics"])
    return record


def checksum(folder: Path, name: str) -> str:
    """The checksum of a file of a finished run, as `run.json` has it; "" where it has none."""
    return str(read_record(folder).get("files", {}).get(name, ""))


def write_atomically(path: Path, text: str, *, flush: bool = True) -> None:
    """Write a text file atomically: readers see the old or the new content, never a part."""
    with replacing(path, flush=flush) as partial:
        partial.write_text(text, encoding="utf-8")


def read_scores(folder: Path) -> pd.DataFrame:
    """Scores of a finished run or evaluation: path, label, source, split, one column per class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Not pandas.read_parquet: for a few hundred rows, a data set and threads take most of the time.
    path = folder / SCORES
    try:
        with pq.ParquetFile(path) as file:
            table: pd.DataFrame = file.read(use_threads=False).to_pandas(use_threads=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; run the study again, which computes it") from error
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, and not of the content
            raise
        raise InputError(f"{path}: damaged; run the study again, which computes it") from error
    return table


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
