"""Options of the method: Teachers, their maps, and variants of the Students."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from preceptor.config.guidance import CamClass, Distances, PoolKind
from preceptor.config.maps import PostProcessing, Trust
from preceptor.config.settings import Amount, Few, Fraction, Settings
from preceptor.config.training import Training
from preceptor.study.alphas import Alpha, default_alphas

# Temperature of soft labels, as in the paper that introduced them, where it was 1 to 20.
SOFT_TEMPERATURE = 2.0


class Mapper(Settings):
    """Teachers that are taught maps alone: a logistic loss for each cell, without class labels.

    Args:
        cell_full: Share of a cell that a human map must cover to count as marked.
        mark_weight: Additional weight of a marked cell.
        top: Highest cells whose mean is the mapper's own score of an image: a share of all cells,
            or a number.
        decoder: none, or fpn: a feature pyramid on the backbone, for marks smaller than a cell.
        stride: Stride of the decoder's grid in pixels.
        start: Whether Baseline 1, Baseline 2 and the Students are also trained from the weights of
            a mapper of their backbone and seed, at their selected settings, as further rows.

    Reference:
        start: C. R. Crum, A. Czajka, "MENTOR: Human Perception-Guided Pretraining for Increased
        Generalization", WACV 2025.
    """

    cell_full: Annotated[float, Field(gt=0, le=1)] = 0.25
    mark_weight: Annotated[float, Field(ge=0)] = 9.0
    top: Amount = 0.1
    decoder: Literal["none", "fpn"] = "none"
    stride: Literal[4, 8, 16] = 8
    start: bool = False

    @model_validator(mode="after")
    def _start_of_a_backbone(self) -> Mapper:
        if self.start and self.decoder != "none":
            raise ValueError(
                f"start needs the weights of a plain backbone, and decoder is {self.decoder}; set "
                "start: false, or decoder: none"
            )
        return self

    def backbone_args(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the backbone of a mapper in a study."""
        if self.decoder == "none":
            return dict(given)
        return dict(given) | {"decoder": self.decoder, "decoder_stride": self.stride}

    def training(self, study: Training) -> Training:
        """Training settings of a mapper in a study."""
        return study.model_copy(
            update={
                "recipe": None,
                "distance": "cells",
                "cam_class": "decision",
                "head": "sigmoid",
                "cam_source": "head_input",
                "cell_full": self.cell_full,
                "mark_weight": self.mark_weight,
                "pool": "top",
                "pool_top": self.top,
                "readout": "none",
                "balanced": True,
                "checkpoint": "last",
                "consistency": 0.0,
                "augmentation": study.augmentation.model_copy(update={"outside": "none"}),
            }
        )


def _mapper_or_none(value: Any) -> Any:
    return {True: Mapper(), False: None}.get(value, value) if value in (True, False) else value


MapperSetting = Annotated[Mapper | None, BeforeValidator(_mapper_or_none)]
"""Settings of a mapper, or none; in a file also true (the default settings) or false."""


class GuidanceConfig(Settings):
    """Options of the method: how a Teacher's maps are made, and how they guide Students.

    Args:
        teacher_rows: Training images of a human-guided Teacher: annotated, or all (with guidance on
            images with a human map).
        committee: Number of Teachers whose mean maps guide a Student: that of its seed, and further
            ones on the same images that differ only in their seed.
        generations: 1 = the Teacher's maps guide Students; 2 = they guide a model of the Teacher's
            backbone on all images, whose maps guide Students; and so on.
        human_maps: Treatment of human maps of annotated images: replace (by the Teacher's map), or
            keep.
        trust: Factors of the map weights, see `MapSource`.
        guide_classes: Classes with guidance, also for Teachers; None = all.
        post: Post-processing of Teachers' and given maps that guide Students.
        human_post: Post-processing of human maps wherever they guide: Baseline 1, human-guided
            Teachers, ceiling, the control mixed, and human maps that Students keep.
        soft_labels: Weight of the Teacher's probabilities in a Student's classification term; 0 =
            labels only.
    """

    teacher_rows: Literal["annotated", "all"] = "annotated"
    committee: Few = 1
    generations: Few = 1
    human_maps: Literal["replace", "keep"] = "replace"
    trust: Trust = "none"
    guide_classes: tuple[str, ...] | None = None
    post: PostProcessing = PostProcessing()
    human_post: PostProcessing = PostProcessing()
    soft_labels: Fraction = 0.0

    @model_validator(mode="after")
    def _agreement_of_several(self) -> GuidanceConfig:
        if self.trust == "agreement" and self.committee == 1:
            raise ValueError("trust: agreement is that of a committee; set committee to 2 or more")
        return self


class Guidance(Settings):
    """Way of guiding: the settings of the loss that differ from those of the study.

    Args:
        distance: Distance of the guidance term.
        cam_class: Map that is guided.
        pool: Pooling of the maps to logits; also offered to runs without guidance.
        alphas: α grid; None = that of the study, or the default grid of the distance if the
            distance differs from the study's.
    """

    distance: Distances | None = None
    cam_class: CamClass | None = None
    pool: PoolKind | None = None
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] | None = None

    def training(self, study: Training) -> Training:
        """Training settings of this way of guiding in a study."""
        return _with_loss(study, self.distance, self.cam_class, self.pool)

    def alpha_grid(self, study: tuple[float, ...]) -> tuple[float, ...]:
        """α grid, given the study's own."""
        if self.alphas is not None:
            return self.alphas
        return study if self.distance is None else default_alphas(self.distance)


class Variant(Settings):
    """Variant of the Students: the settings that differ from those of the study.

    Args:
        teacher_alpha: α of its human-guided Teacher.
        distance: Distance of the Student's guidance; α is comparable only within one distance.
        cam_class: Map of the Student that is guided.
        pool: Pooling of the Student's maps to logits.
        alpha: α of the Student; auto = it follows the losses of each batch, see `RunConfig`; None =
            the α selected for the study's own Students.
        human_post: Post-processing of the human maps that guide its Teachers or its Students.
        teacher_rows, committee, generations, human_maps, trust, guide_classes, post,
            soft_labels: See `GuidanceConfig`.
    """

    teacher_alpha: Alpha | None = None
    distance: Distances | None = None
    cam_class: CamClass | None = None
    pool: PoolKind | None = None
    alpha: Alpha | Literal["auto"] | None = None
    teacher_rows: Literal["annotated", "all"] | None = None
    committee: Few | None = None
    generations: Few | None = None
    human_maps: Literal["replace", "keep"] | None = None
    trust: Trust | None = None
    guide_classes: tuple[str, ...] | None = None
    post: PostProcessing | None = None
    human_post: PostProcessing | None = None
    soft_labels: Fraction | None = None

    def training(self, study: Training) -> Training:
        """Training settings of the variant in a study."""
        return _with_loss(study, self.distance, self.cam_class, self.pool)

    def alpha_of(self, selected: float) -> float:
        """α of the Student in tables, given the selected one; NaN if it follows the losses."""
        if self.alpha is None:
            return selected
        return math.nan if self.alpha == "auto" else self.alpha

    def changes(self) -> dict[str, Any]:
        """Settings of `GuidanceConfig` that the variant changes."""
        given = {name: getattr(self, name) for name in GuidanceConfig.model_fields}
        return {name: value for name, value in given.items() if value is not None}


def _with_loss(
    study: Training,
    distance: Distances | None,
    cam_class: CamClass | None,
    pool: PoolKind | None,
) -> Training:
    """Training settings with the given settings of the loss; None = those of the study."""
    own = {"distance": distance, "cam_class": cam_class, "pool": pool}
    return study.model_copy(
        update={name: value for name, value in own.items() if value is not None}
    )
