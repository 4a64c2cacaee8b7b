"""Small runs in tests: two epochs of a small network on 24 images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.config.run import RunConfig
from preceptor.config.training import Training

SMALL = Training(input_size=32, epochs=2, batch_size=8, lr=0.01, schedule="constant")


def small(manifest: Path, **values: Any) -> RunConfig:
    """A run on squares, with other values."""
    base = {
        "manifest": manifest,
        "backbone": "test_byobnet",
        "backbone_args": {"output_stride": 8},
        "positive": "marked",
        "training": SMALL,
    }
    return RunConfig.model_validate(base | values)
