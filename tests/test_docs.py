"""What the documents show is run: a reader's first paste must work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(block, id=f"{file.relative_to(ROOT)} {number}")
    for file in PAGES
    for number, block in enumerate(BLOCK.findall(file.read_text(encoding="utf-8")), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_of_the_documents_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small network in the place of a large one: the calls and their shapes."""
    monkeypatch.chdir(tmp_path)  # where it writes its files
    exec(compile(block.replace('"resnet50"', '"test_resnet"'), "document", "exec"), {})


def test_there_is_something_to_run() -> None:
    assert BLOCKS


def test_links_between_documents_lead_somewhere() -> None:
    for file in {*ROOT.glob("*.md"), *PAGES}:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
            # The build of the site makes the pages in `generated`, and checks the links to them.
            if "://" not in target and "generated" not in target.split("/"):
                assert (file.parent / target).exists(), f"{file.name}: {target}"
