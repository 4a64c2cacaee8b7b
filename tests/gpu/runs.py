"""Configs of small trainings on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.config.run import RunConfig
from tests.datasets import SHORT
from tests.training.small_runs import small


def run_of(manifest: Path, device: str, backbone: str, **training: Any) -> RunConfig:
    training = SHORT | {"input_size": 64, "lr": 0.001, "device": device} | training
    maps = {"kind": "human"}
    return small(manifest, backbone=backbone, backbone_args={}, maps=maps, training=training)
