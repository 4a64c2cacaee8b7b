"""Commands of the tutorials, run in order in an empty folder; those not run have a reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import HANGS
from tests.forked_program import program_folder

DOCS = Path(__file__).resolve().parents[2] / "docs"
TUTORIALS = sorted(page for page in (DOCS / "tutorials").glob("*.md") if page.stem != "index")
OTHERS = [*sorted((DOCS / "howto").glob("*.md")), DOCS / "faq.md"]
BLOCK = re.compile(r"(?:^<!-- not run: *(.*?) *-->\n+)?^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Shell block of a page, and the reason why it is not run; None = it is run."""

    commands: str
    reason: str | None


def blocks_of(text: str) -> list[Block]:
    """Shell blocks of a page.

    Example:
        >>> blocks_of("<!-- not run: a server -->\\n\\n```sh\\nserve\\n```\\n```sh\\nls\\n```\\n")
        [Block(commands='serve\\n', reason='a server'), Block(commands='ls\\n', reason=None)]
    """
    return [Block(match[2], match[1]) for match in BLOCK.finditer(text)]


def script_of(page: Path) -> str:
    """Blocks of a tutorial that are run, as one script."""
    return "".join(one.commands for one in blocks_of(page.read_text()) if one.reason is None)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_its_commands_succeed(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the forged photographs are scikit-image's")
    work = tmp_path / "empty"
    work.mkdir()
    with program_folder() as first:
        folders = [str(first), str(Path(sys.executable).parent), os.environ["PATH"]]
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script_of(page)],
            cwd=work,
            env=os.environ | {"PATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "error" not in done.stderr, done.stderr


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_has_commands(page: Path) -> None:
    assert "preceptor " in script_of(page)


@pytest.mark.parametrize("page", [*TUTORIALS, *OTHERS], ids=lambda page: page.stem)
def test_a_block_that_is_not_run_has_a_reason(page: Path) -> None:
    text = page.read_text()
    for block in blocks_of(text):
        assert block.reason != "", block.commands
        assert block.reason is not None or page in TUTORIALS, block.commands
    assert text.count("<!-- not run") == sum(one.reason is not None for one in blocks_of(text))


def test_a_comment_without_a_reason_is_found() -> None:
    (block,) = blocks_of("<!-- not run: -->\n\n```sh\nls\n```\n")
    assert block.reason == ""
