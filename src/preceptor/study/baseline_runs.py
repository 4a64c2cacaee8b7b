"""Runs without a Teacher: baselines, ceiling and controls."""

from __future__ import annotations

from typing import Literal

from preceptor.config.maps import MapSource
from preceptor.study.protocol import Protocol
from preceptor.study.setting import Setting
from preceptor.study.steps import Arm, Step


def annotated_run(protocol: Protocol, backbone: str, setting: Setting, seed: int) -> Step:
    """Baseline 1, a run on A; without guidance for α 1."""
    maps = MapSource(kind="human" if setting.alpha < 1 else "none")
    config = protocol.config(
        backbone, seed, setting.guidance, rows="annotated", alpha=setting.alpha, maps=maps
    )
    return protocol.train(Arm.of_setting("baseline1", backbone, setting), config)


def full_run(
    protocol: Protocol,
    role: Literal["baseline2", "ceiling", "centre", "pca", "shuffled_human", "mixed"],
    backbone: str,
    setting: Setting,
    seed: int,
) -> Step:
    """Run on T without a Teacher: Baseline 2 (α 1), the ceiling (all human maps), or the
    controls `centre`, `pca`, `shuffled_human` (the ceiling's maps, permuted within class) and
    `mixed` (human maps on A, labels only for the other images).
    """
    maps = {
        "baseline2": MapSource(kind="none"),
        "ceiling": MapSource(kind="human"),
        "centre": MapSource(kind="centre"),
        "pca": MapSource(kind="pca", components=protocol.study.pca_components),
        "shuffled_human": MapSource(kind="human", shuffle_seed=seed),
        "mixed": MapSource(kind="human"),
    }[role]
    own = {} if role == "mixed" else {"annotated": None, "annotated_seed": 0}
    config = protocol.config(
        backbone, seed, setting.guidance, rows="all", alpha=setting.alpha, maps=maps, **own
    )
    return protocol.train(Arm.of_setting(role, backbone, setting), config)
