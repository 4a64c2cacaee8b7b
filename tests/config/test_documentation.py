"""Descriptions of config keys, and the JSON Schema for editors."""

from __future__ import annotations

import pytest

from preceptor.config.run import RunConfig
from preceptor.config.settings import Settings
from preceptor.study.config import StudyConfig
from tests.documents import docs_module

reference = docs_module("reference_pages")


@pytest.mark.parametrize("model", [StudyConfig, RunConfig])
def test_every_key_is_described(model: type[Settings]) -> None:
    schema = reference.json_schema(model)
    tables = [schema, *schema["$defs"].values()]
    assert all(key["description"] for table in tables for key in table["properties"].values())


def test_descriptions_are_those_of_the_docstrings() -> None:
    found = reference.descriptions(StudyConfig)
    assert found["teachers"] == "Backbones of the Teachers."
    assert reference.descriptions(RunConfig)["seed"].startswith("Random seed of weights")


class Undescribed(Settings):
    """Config with a key that the docstring lacks.

    Args:
        one, two,
            three: Keys with one description.
    """

    one: int = 1
    two: int = 2
    three: int = 3
    four: int = 4


def test_a_key_without_a_description_is_an_error() -> None:
    with pytest.raises(KeyError, match="four"):
        reference.descriptions(Undescribed)
