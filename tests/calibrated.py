"""A calibrated model whose calibration is known, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.commands import here
from tests.drawn_labels import drawn_labels
from tests.model_folders import model_folder

TEMPERATURE, RATE = 2.5, 0.05


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
    printed = here(
        "calibrate", model, manifest, "--out", out, "--false-alarms", RATE, "--device", "cpu"
    ).out
    return Calibrated(model, manifest, out, printed)
