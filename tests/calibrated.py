"""A calibrated model whose calibration is known, made once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.deploy.network import CALIBRATION, calibrated, steps_at
from preceptor.deploy.prediction import Calibration
from preceptor.models.build import MODEL_FILES
from preceptor.utils.results import write_checksums
from tests.commands import here
from tests.drawn_labels import drawn_labels
from tests.model_folders import model_folder

TEMPERATURE = 2.5


@dataclass(frozen=True)
class Calibrated:
    """Model folder, manifest and calibrated copy."""

    model: Path
    manifest: Path
    folder: Path
    printed: str


def make_calibrated(folder: Path) -> Calibrated:
    """Calibrate a model of two classes, one of them positive, by the command."""
    model = model_folder(folder / "model", "test_resnet")
    manifest = drawn_labels(folder / "data", model, TEMPERATURE)
    out = folder / "best"
    printed = here("calibrate", model, manifest, "--out", out, "--device", "cpu").out
    return Calibrated(model, manifest, out, printed)


def calibrated_array(
    probabilities: NDArray[np.float32],
    temperature: float,
    positive: int | None,
    thresholds: Iterable[float] = (),
) -> NDArray[np.float32]:
    """Calibrated probabilities as an array, with decisions kept at thresholds of the score."""
    calibration = Calibration(temperature)
    steps = steps_at(calibration, thresholds)
    return calibrated(torch.from_numpy(probabilities), calibration, positive, steps).numpy()


def add_calibration(folder: Path, calibration: Calibration) -> None:
    """Add a calibration to a model folder, with its checksum."""
    (folder / CALIBRATION).write_text(json.dumps(asdict(calibration)))
    write_checksums(folder, (*MODEL_FILES, CALIBRATION))
