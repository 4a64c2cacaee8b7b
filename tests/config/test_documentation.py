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
