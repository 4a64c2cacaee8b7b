"""The run folder: what a finished run leaves, its id, and how an interrupted one is kept.

    config.yaml  metrics.csv  scores.parquet  model/  log.txt  run.json

`run.json` is written last, with the checksums of the rest: a run exists if and only if it does.
The id is known before anything runs: a hash of the resolved config, of the rows and files that the
run uses, and of NUMERICS.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config import RunConfig
from preceptor.data.manifest import Manifest, fingerprints
from preceptor.errors import InputError

# Raised when the arithmetic of training changes, or a default of RunConfig, so that old runs are
# not taken for new ones.
NUMERICS = 2

# What says where and how a run is computed, but not what it computes.
_NOT_IDENTITY = {"recipe", "device", "cache"}


def digest(value: Any) -> str:
    """A short hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def file_digest(path: Path) -> str:
    """blake2b of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class RowHashes:
    """What each manifest row is, by content; made once and shared by all runs of a study.

    Args:
        manifest: All rows.
        cache: Where file hashes are remembered between calls.
    """

    def __init__(self, manifest: Manifest, cache: Path | None) -> None:
        hashes = fingerprints(manifest, cache=cache)
        table = manifest.table
        self.image = [
            " ".join(map(str, parts))
            for parts in zip(
                table["name"], hashes["path"], table["label"], table["split"], table["source"],
                table["sample_weight"], strict=True,
            )
        ]  # fmt: skip
        self.map = [
            f"{content} {weight}"
            for content, weight in zip(hashes["saliency"], table["map_weight"], strict=True)
        ]
        self.has_map = (table["saliency"] != "").to_numpy()
        self._known: dict[str, str] = {}

    def of(self, rows: NDArray[np.int64], mapped: NDArray[np.bool_] | None) -> str:
        """The hash of these rows, with the human maps of those marked in `mapped` (n,)."""
        key = digest([_bytes_digest(rows), None if mapped is None else _bytes_digest(mapped)])
        if key not in self._known:  # a study has thousands of runs on a few choices of rows
            state = hashlib.blake2b(digest_size=10)
            for position, row in enumerate(rows):
                state.update(self.image[row].encode())
                if mapped is not None and mapped[position]:
                    state.update(self.map[row].encode())
                state.update(b"\n")
            self._known[key] = state.hexdigest()
        return self._known[key]


def _bytes_digest(values: NDArray[Any]) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()


def run_id(config: RunConfig, rows_hash: str, weights_hash: str) -> str:
    """The id of a run.

    Args:
        config: Resolved. Paths are left out: content stands for them.
        rows_hash: Of `RowHashes.of`.
        weights_hash: Content of the weights file, or "hub" or "none".
    """
    # Defaults are left out, so that a word added later leaves the ids of earlier runs as they
    # were. Hence a default is part of what NUMERICS numbers: who changes one raises it.
    values = config.model_dump(mode="json", exclude_defaults=True)
    for key in ("manifest", "weights", "annotated", "annotated_seed"):
        values.pop(key, None)  # the rows used and the weights' content stand for them
    training = values.pop("training", {})
    values["training"] = {key: value for key, value in training.items() if key not in _NOT_IDENTITY}
    if not config.guided:  # what would have guided does not matter
        for key in ("maps", "guide_classes", "alpha", "alpha_start", "post", "human_post"):
            values.pop(key, None)
        for key in ("distance", "cam_class"):
            values["training"].pop(key, None)
        values["guided"] = False  # a guided run with all defaults would look the same
    elif config.maps.kind == "human":
        values.pop("post", None)  # it guides by no map but human ones
    elif config.maps.human == "replace":
        values.pop("human_post", None)  # it guides by no human map
    if values.get("alpha_start") == config.alpha:
        values.pop("alpha_start")  # it starts where it ends
    for key in ("maps", "soft_labels"):
        values.get(key, {}).pop("path", None)
    return digest([values, rows_hash, weights_hash, NUMERICS])


def weights_digest(weights: str) -> str:
    """What stands for the weights in an id: the content of a file, or the word."""
    if weights in ("hub", "none"):
        return weights
    if not Path(weights).is_file():
        raise InputError(f"weights: {weights} is not a file; use a .safetensors file, hub or none")
    return file_digest(Path(weights))


def is_finished(folder: Path) -> bool:
    """Whether a run (or any step that ends with a run.json) exists."""
    return (folder / "run.json").is_file()


def finish(folder: Path, record: dict[str, Any], *, without: str = "") -> None:
    """Write `run.json`, last and at once, with the checksums of everything beside it.

    Args:
        folder: Of the run or step.
        record: What run.json says besides.
        without: A file that is not part of the result and may go.
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
    write_atomically(folder / "run.json", json.dumps(record, indent=2) + "\n")


def damaged_files(folder: Path) -> list[str]:
    """Files of a finished run that are missing, cannot be read, or are not what run.json says."""
    try:
        files = read_record(folder)["files"].items()
    except (OSError, InputError, KeyError, TypeError, AttributeError):
        return ["run.json"]
    return [name for name, checksum in files if not _is(folder / name, checksum)]


def _is(path: Path, checksum: str) -> bool:
    try:
        return file_digest(path) == checksum
    except OSError:
        return False


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        InputError: It is damaged.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, and of UTF-8
        record = error
    if not isinstance(record, dict):
        raise InputError(f"{folder / 'run.json'}: damaged; remove the folder and run it again")
    return record


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_scores(folder: Path) -> pd.DataFrame:
    """The scores of a finished run or evaluation: path, label, source, split, a column a class."""
    return pd.read_parquet(folder / "scores.parquet")
