"""Runs on all training images that are guided by the maps of a Teacher."""

from __future__ import annotations

from preceptor.config.maps import MapSource, PostProcessing, SoftLabels
from preceptor.config.run import RunConfig
from preceptor.study.options import SOFT_TEMPERATURE, GuidanceConfig
from preceptor.study.protocol import Protocol
from preceptor.study.steps import Arm, Step


def guided_by(source: MapSource, guiding: GuidanceConfig, alpha: float) -> dict[str, object]:
    """Settings of a run that is guided by a Teacher's maps."""
    values: dict[str, object] = {
        "alpha": alpha,
        "maps": source,
        "guide_classes": guiding.guide_classes,
        "post": guiding.post,
        "human_post": guiding.human_post,
    }
    if guiding.soft_labels:
        values["soft_labels"] = soft_labels(source, guiding.soft_labels)
    return values


def on_maps(
    protocol: Protocol, arm: Arm, seed: int, values: dict[str, object], steps: list[Step]
) -> list[Step]:
    """Run on T that needs the last of these steps."""
    config = protocol.config(arm.backbone, seed, arm.guidance, rows="all", **values)
    needs = (steps[-1].id,) if steps else ()
    return [*steps, protocol.train(arm, without_annotation(config), needs)]


def soft_labels(source: MapSource, weight: float) -> SoftLabels:
    """Soft labels from a Teacher's map store."""
    assert source.path is not None
    return SoftLabels(
        path=source.path, identity=source.identity, weight=weight, temperature=SOFT_TEMPERATURE
    )


def without_annotation(config: RunConfig) -> RunConfig:
    """Run config without the draw of A and the post-processing of human maps, if no human map
    guides.

    The draw of A and the processing of its maps are part of the id of the Teacher's maps.
    """
    if config.maps.kind == "store" and config.maps.human == "keep":
        return config
    return config.model_copy(
        update={"annotated": None, "annotated_seed": 0, "human_post": PostProcessing()}
    )
