"""Configs of small trainings on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.config.run import RunConfig


def run_of(manifest: Path, device: str, backbone: str, **training: Any) -> RunConfig:
    settings = {
        "input_size": 64,
        "epochs": 1,
        "batch_size": 8,
        "lr": 0.001,
        "schedule": "constant",
        "device": device,
    }
    return RunConfig.model_validate(
        {
            "manifest": manifest,
            "backbone": backbone,
            "positive": "marked",
            "maps": {"kind": "human"},
            "training": settings | training,
        }
    )
