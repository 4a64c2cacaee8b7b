"""Settings of the Teacher of the marking page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from preceptor.config.maps import MapSource
from preceptor.config.paths import Weights
from preceptor.config.run import RunConfig
from preceptor.config.settings import Count, Settings
from preceptor.config.training import Training
from preceptor.study.options import Mapper

MARKED, NOTHING = "marked", "nothing"
"""Classes of the mapper: images with marks, and examined images without."""


class TeacherConfig(Settings):
    """Settings of the Teacher of the marking page.

    Args:
        every: Number of new answers after which a new Teacher is trained.
        backbone: Name of a timm backbone.
        weights: Initial weights: hub, none or a .safetensors file.
        backbone_args: Further arguments of the backbone.
        mapper: Settings of the mapper.
        training: Training settings; by default 400 steps of 16 images with AdamW, and a one-cycle
            schedule up to a learning rate of 0.001.
        seed: Random seed.
    """

    every: Count = 20
    backbone: str = "resnet18"
    weights: Weights = "hub"
    backbone_args: Mapping[str, Any] = {}
    mapper: Mapper = Mapper()
    training: Training = Training(
        length="steps",
        epochs=4,
        steps=400,
        batch_size=16,
        optimizer="adamw",
        lr=1e-3,
        schedule="one_cycle",
        checkpoint="last",
    )
    seed: Annotated[int, Field(ge=0)] = 0

    def run(self, manifest: Path) -> RunConfig:
        """Config of the training of the mapper."""
        return RunConfig(
            manifest=manifest,
            backbone=self.backbone,
            weights=self.weights,
            backbone_args=self.mapper.backbone_args(self.backbone_args),
            positive=MARKED,
            rows="annotated",
            labels="marks",
            alpha=0.0,
            maps=MapSource(kind="human"),
            training=self.mapper.training(self.training),
            seed=self.seed,
        )
