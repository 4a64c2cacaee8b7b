"""Runs without a Teacher: baselines, ceiling and controls."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

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
    like: Mapping[str, Any] = MappingProxyType({}),
) -> Step:
    """Run on T without a Teacher: Baseline 2 (α 1), the ceiling (all human maps), or the
    controls `centre`, `pca`, `shuffled_human` (the ceiling's maps, permuted within class) and
    `mixed` (human maps on A, labels only for the other images).

    Args:
        like: Settings of `control_runs.guides_like`, for the controls `centre` and `pca`.
    """
    marks, own = bool(like.get("marks")), {key: like[key] for key in like if key != "marks"}
    maps = {
        "baseline2": MapSource(kind="none"),
        "ceiling": MapSource(kind="human"),
        "centre": MapSource(kind="centre", marks=marks),
        "pca": MapSource(kind="pca", marks=marks, components=protocol.study.pca_components),
        "shuffled_human": protocol.shuffled(MapSource(kind="human"), seed),
        "mixed": MapSource(kind="human"),
    }[role]
    if role != "mixed":
        own |= {"annotated": None, "annotated_seed": 0}
    config = protocol.config(
        backbone, seed, setting.guidance, rows="all", alpha=setting.alpha, maps=maps, **own
    )
    return protocol.train(Arm.of_setting(role, backbone, setting), config)
