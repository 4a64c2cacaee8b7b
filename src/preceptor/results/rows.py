"""Rows of the main table, and the arms of the study that they show."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from preceptor.study.config import OF_TEACHER, PAPER_ALPHA, added_control
from preceptor.study.plan import Plan
from preceptor.study.protocol import added_controls_of, controls_of
from preceptor.study.steps import Arm, Role
from preceptor.utils.plugins import registered

OVERALL = "overall"  # the mean over backbones, seed by seed
CONTROLS = {
    "shuffled": "Control: the same maps, shuffled",
    "centre": "Control: one centred map",
    "pca": "Control: maps of principal components, no person",
    "shuffled_human": "Control: all human maps, shuffled",
    "mixed": "Control: all images, human maps on the annotated",
    "masked": "Control: trained on the marked regions alone",
    "dfr": "Control: Baseline 2, last layer trained again on {set}",
}
STARTED: dict[str, tuple[Role, str]] = {
    "baseline1_started": ("baseline1", "Baseline 1 from the mapper's weights"),
    "baseline2_started": ("baseline2", "Baseline 2 from the mapper's weights"),
    "student_started": ("student", "Student from the mapper's weights"),
}
"""Rows of runs that start from the weights of a mapper: role and title by key."""
DETECTORS: dict[Role, str] = {
    "mapper": "Mapper as a detector: annotated, human maps",
    "mapper_all": "Mapper as a detector: all human maps",
}


@dataclass(frozen=True)
class Row:
    """Row of the main table: an arm of the study for each backbone.

    Args:
        key: baseline1_paper, baseline1, baseline2, student, "variant NAME", ceiling, a control in
            `CONTROLS`, "control NAME" for one of a plugin, a detector in `DETECTORS`, or one of
            `STARTED`.
        title: Title, without the backbone.
        arms: Arms by backbone.
        variant: Name of the variant, or "".
    """

    key: str
    title: str
    arms: dict[str, Arm]
    variant: str = ""


def table_rows(plan: Plan) -> list[Row]:
    """Rows of the main table whose settings are selected."""
    study, winner = plan.protocol.study, plan.winner()
    rows: list[Row] = []

    def add(key: str, title: str, arms: dict[str, Arm | None], variant: str = "") -> None:
        known = {backbone: arm for backbone, arm in arms.items() if arm is not None}
        if known:
            rows.append(Row(key, title, known, variant))

    def chosen(role: Role, of: Role, teacher: str = "", variant: str = "") -> dict[str, Arm | None]:
        arms: dict[str, Arm | None] = {}
        for backbone in study.students:
            setting = plan.setting_of(of, backbone)
            arms[backbone] = (
                None
                if setting is None
                else Arm(role, backbone, setting.alpha, teacher, variant, guidance=setting.guidance)
            )
        return arms

    alpha, way = study.paper_setting.alpha, study.paper_setting.guidance
    paper = {name: Arm("baseline1", name, alpha, guidance=way) for name in study.students}
    add("baseline1_paper", f"Baseline 1: annotated, human maps, α {PAPER_ALPHA:g}", {**paper})
    add("baseline1", "Baseline 1 at its best α", chosen("baseline1", "baseline1"))
    add("baseline2", "Baseline 2: all images, no guidance", chosen("baseline2", "baseline2"))
    if winner is not None:
        add(
            "student",
            "Student: all images, Teacher's maps",
            chosen("student", "student", str(winner)),
        )
        for control in controls_of(study):
            of_teacher = str(winner) if control in OF_TEACHER else ""
            arms = chosen(control, control, of_teacher)
            add(control, CONTROLS[control].format(set=study.dfr_set), arms)
        for name in added_controls_of(study):
            arms = chosen("control", "student", "", name)
            add(_added_key(name), added_control(name).title, arms)
        if study.starts_from_mapper:
            for key, (role, title) in STARTED.items():
                arms = chosen(role, role, str(winner) if role == "student" else "")
                add(
                    key,
                    title,
                    {name: arm and replace(arm, start="mapper") for name, arm in arms.items()},
                )
    if study.mapper and winner is not None:
        for role, title in DETECTORS.items():
            if role == "mapper" or study.ceiling:
                add(role, title, {name: Arm(role, name, 0.0) for name in study.teachers})
    if study.ceiling:
        add("ceiling", "Ceiling: all images, all human maps", chosen("ceiling", "ceiling"))
    return rows


def control_keys() -> list[str]:
    """Keys of the rows of controls, of this library and of plugins."""
    return [*CONTROLS, *added_control_keys()]


def added_control_keys() -> list[str]:
    """Keys of the rows of installed controls of plugins."""
    return [_added_key(name) for name in registered("preceptor.controls")]


def _added_key(name: str) -> str:
    return f"control {name}"


def row_order(rows: Iterable[Row]) -> list[str]:
    """The keys of lines in the order of the tables: variants after the Student."""
    first = ["baseline1_paper", "baseline1", "baseline2", "student"]
    last = [*control_keys(), *STARTED, *DETECTORS, "ceiling"]
    place = {key: position for position, key in enumerate([*first, *last])}
    return sorted((row.key for row in rows), key=lambda key: place.get(key, len(first) - 0.5))


def set_order(plan: Plan) -> list[str]:
    """The evaluation sets: primary, the other test sets, the validation sets."""
    manifest = plan.protocol.workspace.manifest
    names = [plan.protocol.primary, *manifest.eval_splits("test"), *manifest.eval_splits("val")]
    return list(dict.fromkeys(names))


def select_arm(figures_table: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """Metrics of one arm."""
    mask = (
        (figures_table["role"] == arm.label)
        & (figures_table["backbone"] == arm.backbone)
        & (
            figures_table["alpha"].isna()
            if math.isnan(arm.alpha)
            else figures_table["alpha"] == arm.alpha
        )
    )
    mask &= figures_table["guidance"] == arm.guidance
    if arm.teacher:
        mask &= figures_table["teacher"] == arm.teacher
    return figures_table[mask]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as dicts."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
