"""The size of a study file: how many settings there are to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from preceptor.study.config import StudyConfig

MOST_KEYS = 65


def keys_of(
    model: type[BaseModel], above: str = "", seen: set[type[BaseModel]] | None = None
) -> Iterator[str]:
    """Distinct dotted keys of a config; a section that occurs twice is counted once."""
    seen = set() if seen is None else seen
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        for section in _models(field.annotation):
            if section not in seen:
                seen.add(section)
                yield from keys_of(section, f"{above}{name}.", seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def test_a_study_has_few_keys() -> None:
    assert len(list(keys_of(StudyConfig))) <= MOST_KEYS
