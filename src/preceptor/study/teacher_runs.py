"""Runs of Teachers: models with or without human guidance, and mappers."""

from __future__ import annotations

from typing import Any, Literal

from preceptor.config.maps import MapSource, PostProcessing
from preceptor.study.options import GuidanceConfig
from preceptor.study.protocol import Protocol
from preceptor.study.run_configs import training_of
from preceptor.study.steps import Arm, Role, Step
from preceptor.study.teacher import Teacher

# Further members of a committee have the seed of the Student plus multiples of this, so that
# Students of different seeds do not share Teachers, and their differences stay independent.
MEMBER_STRIDE = 1000


def teacher_run(
    protocol: Protocol, teacher: Teacher, seed: int, guiding: GuidanceConfig, place: int = 0
) -> Step:
    """Training of a Teacher, or of another member of its committee (`place` > 0)."""
    if teacher.kind == "mapper":
        return mapper_run(protocol, "mapper", teacher.name, seed, guiding.human_post, place)
    maps = MapSource(kind="human" if teacher.alpha < 1 else "none")
    config = protocol.config(
        teacher.name,
        seed,
        rows=guiding.teacher_rows,
        alpha=teacher.alpha,
        maps=maps,
        guide_classes=guiding.guide_classes,
        human_post=guiding.human_post,
        seed=seed + MEMBER_STRIDE * place,
    )
    study = protocol.study
    own = (guiding.teacher_rows, guiding.guide_classes, guiding.human_post) == (
        study.teacher_rows,
        study.guide_classes,
        study.human_post,
    )
    role: Role = "teacher" if own and place == 0 else "member"
    return protocol.train(Arm(role, teacher.name, teacher.alpha), config)


def mapper_run(
    protocol: Protocol,
    role: Literal["mapper", "mapper_all"],
    backbone: str,
    seed: int,
    human_post: PostProcessing | None = None,
    place: int = 0,
) -> Step:
    """Training of a mapper on the human maps of A, or of T (`mapper_all`)."""
    mapper = protocol.study.mapper
    assert mapper is not None
    of_a = role == "mapper"
    own: dict[str, Any] = {} if of_a else {"annotated": None, "annotated_seed": 0}
    config = protocol.config(
        backbone,
        seed,
        rows="annotated",
        labels="marks",
        alpha=0.0,
        guide_classes=None,
        training=mapper.training(training_of(protocol.study, backbone)),
        backbone_args=mapper.backbone_args(protocol.study.backbone_args.get(backbone, {})),
        maps=MapSource(kind="human"),
        human_post=human_post or protocol.study.human_post,
        seed=seed + MEMBER_STRIDE * place,
        **own,
    )
    return protocol.train(Arm("member" if place else role, backbone, 0.0), config)
