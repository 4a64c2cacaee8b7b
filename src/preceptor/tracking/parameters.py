"""Names and parameters of trainings in trackers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Member, Step, Train

Value = str | int | float | bool

# Logged for every run, since studies vary them.
_ALWAYS = ("backbone", "alpha", "seed", "rows")
# Not logged: paths and ids of files on this machine, which are part of the run's id.
_PLACES = {
    "manifest",
    "maps.path",
    "maps.identity",
}


def file_name(step: Step) -> str:
    """Name of a training as part of a file name."""
    return re.sub(r"[^\w.@=-]+", "-", step.name)[:100].strip("-.")


def members_of(step: Step, study: StudyPlan) -> list[tuple[str, Member]]:
    """Members of the study that a run belongs to, with their domains (equal runs are one)."""
    return [
        (plan.domain, member) for plan in study for member in plan.members if member.run == step.id
    ]


def roles_of(step: Step, study: StudyPlan) -> str:
    """Roles of a run in the study as text."""
    return ", ".join(dict.fromkeys(member.arm.label for _, member in members_of(step, study)))


def parameters(step: Step, study: StudyPlan) -> dict[str, Value]:
    """Settings of a training by dotted name: varied settings, and all non-default ones."""
    assert isinstance(step.work, Train)
    config = step.work.config
    found: dict[str, Value] = {}
    for domain, member in members_of(step, study)[:1]:
        found["role"] = member.arm.label
        if member.arm.teacher:
            found["teacher"] = member.arm.teacher
        if study.has_domains:
            found["domain"] = domain
    found |= {name: getattr(config, name) for name in _ALWAYS} | {"maps.kind": config.maps.kind}
    return found | flat(config.model_dump(mode="json", exclude_defaults=True), _PLACES)


def flat(
    values: Mapping[str, Any], without: set[str] | frozenset[str] = frozenset()
) -> dict[str, Value]:
    """Nested settings by dotted name, with lists as JSON and without None.

    Example:
        >>> flat({"training": {"lr": 0.1, "clip": None}, "seeds": [0, 1]})
        {'training.lr': 0.1, 'seeds': '[0, 1]'}
    """
    return {name: value for name, value in _leaves(values, "") if name not in without}


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield prefix + key, json.dumps(value, ensure_ascii=False)
        elif value is not None:
            yield prefix + key, value if isinstance(value, int | float) else str(value)
