"""Keys of YAML in the documents: each is one of a config file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor.config.run import RunConfig
from preceptor.study.config import StudyConfig
from tests.documents import PAGES, ROOT, docs_module

BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (page.relative_to(ROOT), block)
    for page in PAGES
    for block in BLOCK.findall(page.read_text(encoding="utf-8"))
]
SCHEMAS = [docs_module("reference_pages").json_schema(one) for one in (StudyConfig, RunConfig)]
KEYS = {
    key
    for schema in SCHEMAS
    for table in (schema, *schema["$defs"].values())
    for key in table["properties"]
}
# Keys whose values have names of the user's choice; below `backbone_args`, at every depth.
NAMED = {"args", "backbone_args", "backbones", "distance", "domains", "guidances"}
NAMED |= {"maps", "weights"}


def keys(value: Any, named: bool = False) -> Iterator[str]:
    """Keys of nested mappings, without names of the user's choice."""
    if isinstance(value, list):
        for one in value:
            yield from keys(one)
    if isinstance(value, dict):
        for key, inner in value.items():
            if not named:
                yield key
            if key != "backbone_args":
                yield from keys(inner, not named and key in NAMED)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_it_exists(page: Path, block: str) -> None:
    found = yaml.safe_load(block)
    if isinstance(found, dict) and set(found) & KEYS:  # not a file of another program
        assert set(keys(found)) <= KEYS


def test_there_are_blocks() -> None:
    assert BLOCKS
