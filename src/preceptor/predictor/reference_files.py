"""Reading and writing of references: `reference.json` and `reference.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from preceptor.errors import InputError, reason
from preceptor.predictor.calibration import calibration_from
from preceptor.predictor.json_keys import JsonKeys, no_constant
from preceptor.predictor.reference import REFERENCE, DistanceKind, Gaussians, Reference
from preceptor.runtime.checksums import CHECKSUMS, files_that_differ, read_checksums
from preceptor.runtime.failed_writes import tensors_to
from preceptor.runtime.strict_json import strict_json

ARRAYS = "reference.safetensors"
REFERENCE_FILES = (REFERENCE, ARRAYS)
"""Files of a reference in a model folder."""

# Data type and number of dimensions of each array.
_ARRAYS = {
    "probabilities": (np.float32, 2),
    "labels": (np.int64, 1),
    "distances": (np.float64, 1),
}
_GAUSSIANS = {"means": (np.float32, 2), "whitening": (np.float32, 2)}


def write_reference(reference: Reference, folder: Path) -> None:
    """Write the files of a reference to a model folder, without their checksums."""
    calibration = reference.calibration
    values = {
        "calibration": None if calibration is None else asdict(calibration),
        "unfamiliar": {"kind": reference.kind, "rate": reference.rate},
        "description": reference.description,
    }
    (folder / REFERENCE).write_text(strict_json(values) + "\n", encoding="utf-8")
    arrays = {name: getattr(reference, name) for name in _ARRAYS}
    if reference.gaussians is not None:
        arrays |= {name: getattr(reference.gaussians, name) for name in _GAUSSIANS}
    with tensors_to(folder / ARRAYS):
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS
        )


def find_reference(folder: Path, positive: bool) -> Reference | None:
    """Reference of a model folder; None if it has none. Arguments as of `read_reference`."""
    # One that has been removed leaves its checksum, and is missed when it is read.
    if not (folder / REFERENCE).exists() and REFERENCE not in read_checksums(folder):
        return None
    return read_reference(folder, positive)


def read_reference(folder: Path, positive: bool) -> Reference:
    """Reference of a model folder.

    Args:
        folder: Model folder.
        positive: Whether the model has a positive class.

    Raises:
        InputError: A file is missing, damaged, or does not match its checksum.
    """
    known = read_checksums(folder)
    wanted = {name: known.get(name, "") for name in REFERENCE_FILES}
    if changed := files_that_differ(folder, wanted):
        raise InputError(
            f"{folder}: {changed[0]} does not match its checksum in {CHECKSUMS}: it was changed, "
            "damaged or added after the model was calibrated; copy the folder again"
        )
    try:
        text = (folder / REFERENCE).read_text(encoding="utf-8")
        values = json.loads(text, parse_constant=no_constant)
        found = JsonKeys(values, "the reference", {"calibration", "unfamiliar", "description"})
        unfamiliar = JsonKeys(found.values["unfamiliar"], "key unfamiliar", {"kind", "rate"})
        kind: DistanceKind = unfamiliar.choice("kind", get_args(DistanceKind))
        arrays = load_file(folder / ARRAYS)
        gaussians = None
        if kind == "mahalanobis":
            gaussians = Gaussians(**{name: _array(arrays, name, _GAUSSIANS) for name in _GAUSSIANS})
        return Reference(
            calibration=calibration_from(found.values["calibration"], positive),
            kind=kind,
            rate=unfamiliar.number("rate"),
            gaussians=gaussians,
            description=dict(found.values["description"]),
            **{name: _array(arrays, name, _ARRAYS) for name in _ARRAYS},
        )
    except (InputError, OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{folder}: the reference cannot be read: {reason(error)}") from error


def _array(
    arrays: Mapping[str, NDArray[Any]], name: str, kinds: Mapping[str, tuple[type, int]]
) -> NDArray[Any]:
    """Array of a name, with the data type and number of dimensions that it must have."""
    kind, dimensions = kinds[name]
    found = arrays.get(name)
    if found is None or found.dtype != kind or found.ndim != dimensions:
        raise InputError(f"array {name!r} is missing or of another kind")
    return found
