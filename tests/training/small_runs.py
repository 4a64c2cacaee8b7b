"""Small runs in tests: two epochs of a small network on 24 images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from tests.datasets import SHORT, SQUARES_RUN

SMALL = Training.model_validate(SHORT | {"epochs": 2})


def small(manifest: Path, **values: Any) -> RunConfig:
    """A run on squares, with other values."""
    own = {"manifest": manifest, "training": SMALL}
    return RunConfig.model_validate(SQUARES_RUN | own | values)
