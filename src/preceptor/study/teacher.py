"""Teacher configurations: the candidates of stage 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from preceptor.config.maps import Method
from preceptor.study.config import StudyConfig
from preceptor.study.controls import CONTROL_NAMES, Control
from preceptor.study.setting import Setting


@dataclass(frozen=True)
class Teacher:
    """A Teacher configuration: one of the candidates of stage 1.

    Args:
        name: Backbone, or the name of given maps.
        kind: human (guided by human maps), data (no guidance), mapper (taught human maps alone) or
            given (maps from elsewhere).
        alpha: α of its training; 1 where nothing guides.
        method: Saliency method of its maps.
    """

    name: str
    kind: Literal["human", "data", "mapper", "given"]
    alpha: float
    method: Method

    def __str__(self) -> str:
        if self.kind == "given":
            return f"{self.name} (given maps)"
        if self.kind == "mapper":
            return f"{self.name} mapper"
        guided = f"human-guided α {self.alpha:g}" if self.kind == "human" else "data-driven"
        return f"{self.name} {guided}, {self.method.upper()}"


def candidate_name(teacher: Teacher, setting: Setting | None = None) -> str:
    """Name of a candidate of stage 1: a Teacher, and the setting of its Student.

    Example:
        >>> candidate_name(Teacher("resnet18", "mapper", 0.0, "cells"), Setting(0.5))
        'resnet18 mapper; Student α 0.5'
    """
    return str(teacher) if setting is None else f"{teacher}; Student {setting}"


def teachers_of(study: StudyConfig) -> list[Teacher]:
    """Teacher configurations of a study among which one is selected."""
    return [one for one in all_teachers_of(study) if str(one) not in study.excluded_teachers]


def all_teachers_of(study: StudyConfig) -> list[Teacher]:
    """Teacher configurations of a study, also those that it leaves out."""
    found = [
        Teacher(name, "human", alpha, method)
        for name in study.teachers
        for alpha in study.teacher_alphas
        for method in study.saliency
    ]
    if study.data_driven:
        found += [
            Teacher(name, "data", 1.0, method)
            for name in study.teachers
            for method in study.saliency
        ]
    if study.mapper is not None:
        found += [Teacher(name, "mapper", 0.0, "cells") for name in study.teachers]
    return found + [Teacher(name, "given", 1.0, "cam") for name in study.maps]


def controls_of(study: StudyConfig, teacher: Teacher) -> list[Control]:
    """Controls of a study that are possible for a Teacher: given maps have no soft labels.

    Those of plugins are in `added_controls_of`.
    """
    possible = [one for one in study.controls if one in CONTROL_NAMES.own]
    if teacher.kind == "given":
        possible = [one for one in possible if one != "distilled"]
    return cast(list[Control], possible)


def added_controls_of(study: StudyConfig) -> list[str]:
    """Names of the controls of plugins."""
    return [name for name in study.controls if name not in CONTROL_NAMES.own]
