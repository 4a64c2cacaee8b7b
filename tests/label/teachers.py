"""Settings of a Teacher that learns the marks of `squares` in seconds."""

from __future__ import annotations

from preceptor.config.training import Training
from preceptor.label.teacher import TeacherConfig

CONFIG = TeacherConfig(
    backbone="test_byobnet",
    weights="none",
    backbone_args={"output_stride": 8},
    training=Training(
        length="steps",
        steps=60,
        epochs=1,
        batch_size=8,
        optimizer="adamw",
        lr=1e-2,
        input_size=64,
        schedule="one_cycle",
    ),
)
