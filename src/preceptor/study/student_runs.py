"""Runs of Students and of their variants."""

from __future__ import annotations

import math
from dataclasses import replace

from preceptor.study.guided_runs import guided_by, on_maps
from preceptor.study.protocol import Protocol
from preceptor.study.run_configs import training_of
from preceptor.study.setting import Setting
from preceptor.study.steps import Arm, Step, Train
from preceptor.study.teacher import Teacher
from preceptor.study.teacher_maps import maps_of
from preceptor.study.teacher_runs import mapper_run


def student_run(
    protocol: Protocol, teacher: Teacher, backbone: str, setting: Setting, seed: int
) -> list[Step]:
    """Run of a Student, after the steps that make its maps.

    Args:
        teacher: Teacher whose maps guide.
        backbone, setting, seed: Backbone, setting and seed of the Student.
    """
    guiding = protocol.study.guiding()
    source, steps = maps_of(protocol, teacher, seed, guiding)
    values = guided_by(source, guiding, setting.alpha)
    return on_maps(
        protocol, Arm.of_setting("student", backbone, setting, teacher), seed, values, steps
    )


def variant_run(
    protocol: Protocol, name: str, teacher: Teacher, backbone: str, setting: Setting, seed: int
) -> list[Step]:
    """Run of a variant's Student, after the steps that make its maps.

    Args:
        name: Name of the variant in the study config.
        teacher: Teacher of the study, whose α the variant may change.
        backbone, setting, seed: Backbone, setting and seed of the Student; α is NaN if it
            follows the losses.
    """
    variant = protocol.study.variants[name]
    guiding = protocol.study.guiding(variant)
    if variant.teacher_alpha is not None and teacher.kind == "human":
        teacher = replace(teacher, alpha=variant.teacher_alpha)
    source, steps = maps_of(protocol, teacher, seed, guiding)
    values = guided_by(source, guiding, setting.alpha)
    if math.isnan(setting.alpha):
        values["alpha"] = "auto"
    training = training_of(protocol.study, backbone, setting.guidance)
    values["training"] = variant.training(training)
    arm = replace(Arm.of_setting("variant", backbone, setting, teacher), variant=name)
    return on_maps(protocol, arm, seed, values, steps)


def from_mapper(protocol: Protocol, chain: list[Step], seed: int) -> list[Step]:
    """The last run of a chain from the weights of a mapper, after the mapper and the others."""
    *before, run = chain
    assert isinstance(run.work, Train)
    arm = run.work.arm
    mapper = mapper_run(protocol, "mapper", arm.backbone, seed)
    file = protocol.run_folder(mapper.id) / "model" / "model.safetensors"
    changes = {"weights": str(file), "weights_identity": mapper.id}
    config = run.work.config.model_copy(update=changes)
    started = protocol.train(replace(arm, start="mapper"), config, (*run.needs, mapper.id))
    return [*before, mapper, started]
