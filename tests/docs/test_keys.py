"""YAML in the documents: each block is lines of a study file, with known keys and values."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from preceptor.study.config import StudyConfig
from tests.documents import PAGES, ROOT

BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)} {number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1)
]


def problems_of(lines: dict[str, Any]) -> list[str]:
    """Problems of lines of a study file, in a file that is complete otherwise."""
    whole = {"teachers": ["resnet50"], "students": ["resnet50"], "manifest": "manifest.csv"} | lines
    if "domains" in lines:
        del whole["manifest"]
    try:
        StudyConfig.model_validate(whole)
    except ValidationError as error:
        return [".".join(map(str, one["loc"])) for one in error.errors()]
    return []


@pytest.mark.parametrize("block", BLOCKS)
def test_it_is_valid(block: str) -> None:
    assert not problems_of(yaml.safe_load(block))


def test_wrong_blocks_are_found() -> None:
    assert BLOCKS
    assert problems_of({"alpha_begin": 0.1}) == ["alpha_begin"]
    domain = {"manifest": "tiles.csv", "positive": "fault"}
    assert problems_of({"domains": {"tiles": domain}}) == ["domains.tiles.positive"]
