"""Shell blocks of the pages: outside the tutorials, each has a reason why it is not run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, docs_module

DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
shell = docs_module("shell_blocks")


def script_of(page: Path) -> str:
    """Blocks of a tutorial that are run, as one script."""
    return "".join(one.commands for one in shell.blocks_of(page.read_text()) if one.reason is None)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_has_commands(page: Path) -> None:
    assert "preceptor " in script_of(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_that_is_not_run_has_a_reason(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = shell.blocks_of(text)
    for block in blocks:
        assert block.reason != "", block.commands
        assert block.reason is not None or page in TUTORIALS, block.commands
    if "<!-- not run on this page:" in text:
        assert blocks, "no command is on this page"
        assert page not in TUTORIALS
    else:
        reasons = sum(one.reason is not None for one in blocks)
        assert text.count("<!-- not run") == reasons, "a reason without a block"


def test_the_examples_of_its_docstrings() -> None:
    assert doctest.testmod(shell).failed == 0


def test_a_comment_without_a_reason_is_found() -> None:
    (block,) = shell.blocks_of("<!-- not run: -->\n\n```sh\nls\n```\n")
    assert block.reason == ""


def test_blocks_of_every_form_are_found() -> None:
    text = "One:\n\n    preceptor doctor\n    its output\n\n```text\n    pip\n```\n- a\n    pip\n"
    assert [one.commands for one in shell.blocks_of(text)] == [
        "    preceptor doctor\n    its output\n"
    ]
    (block,) = shell.blocks_of(f"<!-- not run on this page: why -->\n\n{text}")
    assert block.reason == "why"
    assert shell.number_of_commands(block) == 1
    assert shell.number_of_commands(shell.Block("cat > a <<'END'\nx\nEND\nls \\\n -l\n", None)) == 2
