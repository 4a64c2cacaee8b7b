"""Notebooks: committed without outputs. The build of the site runs them, see `test_site.py`."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.documents import ROOT, forbidden

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def notebook_pages() -> ModuleType:
    """The module of the build, which is not in a package."""
    spec = importlib.util.spec_from_file_location(
        "notebook_pages", FOLDER.parent / "notebook_pages.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = notebook_pages()


def write_notebook(file: Path, *cells: tuple[str, str]) -> Path:
    """Notebook of (kind, source)."""
    written = [{"cell_type": kind, "source": source.splitlines(True)} for kind, source in cells]
    file.write_text(json.dumps({"cells": written}))
    return file


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_is_committed_without_outputs(notebook: Path) -> None:
    read: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    assert (read["nbformat"], read["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in read["cells"]}) == len(read["cells"])
    for cell in read["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_its_text(notebook: Path) -> None:
    text = "\n\n".join(source for kind, source in pages.cells_of(notebook) if kind == "markdown")
    assert text.startswith("# ")
    assert not forbidden(text)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert "generated" in target or (FOLDER / target).is_file(), target
    assert f"(generated/{notebook.stem}.md)" in (FOLDER / "index.md").read_text()


def test_a_cell_that_fails_fails_the_build(tmp_path: Path) -> None:
    wrong = write_notebook(tmp_path / "wrong.ipynb", ("code", "a = 1"), ("code", "assert a == 2"))
    with pytest.raises(RuntimeError, match=r"wrong.ipynb: a cell has failed(.|\n)*cell 2"):
        pages.outputs_of(wrong)


def test_a_command_that_fails_fails_the_build(tmp_path: Path) -> None:
    source = "import subprocess\nsubprocess.run(['preceptor', 'nothing'], check=True)"
    with pytest.raises(RuntimeError, match="returned non-zero exit status 2"):
        pages.outputs_of(write_notebook(tmp_path / "wrong.ipynb", ("code", source)))


def test_a_page_has_the_outputs(tmp_path: Path) -> None:
    file = write_notebook(
        tmp_path / "one.ipynb",
        ("markdown", "# Title"),
        ("code", "x = 2\nprint('printed')\nx + 1"),
        ("markdown", "See [this](../there.md)."),
        ("code", "y = x"),
    )
    outputs = pages.outputs_of(file)
    assert outputs == [[{"text": "printed\n"}, {"text": "3"}], []]
    page = pages.page_of(file, outputs)
    assert page.startswith("# Title\n\n{download}`Download this notebook <../one.ipynb>`")
    assert "```python\nx = 2\nprint('printed')\nx + 1\n```\n\n```text\nprinted\n```" in page
    assert "[this](../../there.md)" in page


def test_tables_and_pictures() -> None:
    frame = pd.DataFrame({"a": ["<b>"]})
    (table,) = pages.run_cell("frame", {"frame": frame})
    block = pages._block(table)
    assert "&lt;b&gt;" in block
    assert "<style" not in block
    assert "\n\n" not in block  # a blank line would end the HTML
    (picture,) = pages.run_cell("p", {"p": Image.fromarray(np.zeros((2, 2), np.uint8))})
    assert 'src="data:image/png;base64,iVBOR' in pages._block(picture)
