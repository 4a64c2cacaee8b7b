"""Result folders of finished steps: writing, checksums and verification.

    config.yaml  metrics.csv  scores.parquet  model/  log.txt  run.json

`run.json` is written last, with the checksums of the other files: a run exists if and only if its
`run.json` exists.
"""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.errors import InputError
from preceptor.runtime.checksums import file_digest, files_that_differ
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.strict_json import strict_json, with_nan

SCORES = "scores.parquet"
"""Score table of a finished run or evaluation."""


def digest(value: Any) -> str:
    """Short hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether a folder contains the finished result of a run or another step.

    Raises:
        OSError: The disk does not answer.
    """
    # Not Path.is_file, which is False after any error in newer versions of Python.
    try:
        return stat.S_ISREG((folder / "run.json").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def finish(folder: Path, record: dict[str, Any], *, without: str = "") -> None:
    """Finish a result folder: write `run.json` with the checksums of all other files.

    Args:
        folder: Folder of the run or step.
        record: Further content of `run.json`.
        without: File that is not part of the result and is removed.
    """
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".") and file.name != without
    )
    record = record | {
        "files": {
            file.relative_to(folder).as_posix(): file_digest(file)
            for file in files
            if file.name != "run.json"
        }
    }
    write_atomically(folder / "run.json", strict_json(record) + "\n")


def damaged_files(folder: Path) -> list[str]:
    """Files of a finished run that are missing or do not match their checksums.

    Raises:
        OSError: A file cannot be read; nothing is known of its content.
    """
    try:
        files = dict(read_record(folder)["files"])
    except (FileNotFoundError, InputError, KeyError, TypeError, ValueError):
        return ["run.json"]
    return files_that_differ(folder, files)


def read_record(folder: Path) -> dict[str, Any]:
    """Content of `run.json`, with NaN for metrics that are null.

    Raises:
        InputError: The file is damaged.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError as error:  # errors of JSON and of UTF-8
        record = error
    if not isinstance(record, dict):
        raise InputError(f"{folder / 'run.json'}: damaged; remove the folder and run it again")
    if isinstance(record.get("metrics"), dict):
        record["metrics"] = with_nan(record["metrics"])
    return record


def checksum(folder: Path, name: str) -> str:
    """The checksum of a file of a finished run, as `run.json` has it; "" where it has none."""
    return str(read_record(folder).get("files", {}).get(name, ""))


def write_atomically(path: Path, text: str, *, flush: bool = True) -> None:
    """Write a text file atomically: readers see the old or the new content, never a part.

    Args:
        path: Output file.
        text: Content.
        flush: Whether to wait until the content is on the disk.
    """
    with replacing(path, flush=flush) as partial:
        partial.write_text(text, encoding="utf-8")


def read_scores(folder: Path) -> pd.DataFrame:
    """Scores of a finished run or evaluation: path, label, source, split, one column per class.

    Raises:
        InputError: The file is missing or damaged.
    """
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
