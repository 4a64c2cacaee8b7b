"""Pages of the notebooks: each is run from the first cell to the last, and shown with its outputs.

    python docs/notebook_pages.py docs/notebooks/explore-manifest.ipynb outputs.json

runs a notebook in the current folder, and writes its outputs to a file. The site needs neither
Jupyter nor MyST-NB, which would bring about forty packages: a cell is Python, and its output is
what it prints and the value of its last expression.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "notebooks"
GENERATED = HERE / "generated"
_STYLE = re.compile(r"<style.*?</style>", re.DOTALL)  # of pandas; the site has its own
_BORDER = re.compile(r' border="1"')

Output = dict[str, str]
"""Kind of an output (text, html or png) and its content."""


def write_pages() -> None:
    """Run all notebooks, one after the other, and write their pages.

    Raises:
        RuntimeError: A cell has failed.
    """
    GENERATED.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(HERE.glob("*.ipynb")):
        page = page_of(notebook, outputs_of(notebook))
        (GENERATED / f"{notebook.stem}.md").write_text(page, encoding="utf-8")


def cells_of(notebook: Path) -> list[tuple[str, str]]:
    """Kind (markdown or code) and source of each cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def outputs_of(notebook: Path) -> list[list[Output]]:
    """Outputs of each code cell, run in a process of its own and an empty folder.

    Raises:
        RuntimeError: A cell has failed; the message has its traceback.
    """
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "outputs.json")
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), str(notebook.resolve()), str(written)],
            cwd=folder,
            env=os.environ | {"PATH": programs, "PRECEPTOR_CACHE": str(Path(folder, "cache"))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{notebook.name}: a cell has failed\n{done.stderr}")
        found: list[list[Output]] = json.loads(written.read_text(encoding="utf-8"))
    return found


def run(notebook: Path) -> list[list[Output]]:
    """Outputs of each code cell, run in this process."""
    names: dict[str, Any] = {"__name__": "__main__"}
    sources = [source for kind, source in cells_of(notebook) if kind == "code"]
    return [run_cell(source, names, f"cell {at}") for at, source in enumerate(sources, 1)]


def run_cell(source: str, names: dict[str, Any], title: str = "cell") -> list[Output]:
    """Outputs of a cell: the printed text, and the value of its last expression.

    Args:
        source: Python.
        names: Variables of the notebook, which the cell may change.
        title: Title in tracebacks.

    Example:
        >>> run_cell("print('a')\\nx = 2\\nx + 1", {})
        [{'text': 'a\\n'}, {'text': '3'}]
    """
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), title, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), title, "eval"), names)
    found = [{"text": printed.getvalue()}] if printed.getvalue() else []
    return found if value is None else [*found, shown(value)]


def shown(value: Any) -> Output:
    """A value as a notebook shows it: as a picture, as HTML or as text."""
    if hasattr(value, "_repr_png_"):
        return {"png": base64.b64encode(value._repr_png_()).decode()}
    if hasattr(value, "_repr_html_"):
        return {"html": value._repr_html_()}
    return {"text": repr(value)}


def page_of(notebook: Path, outputs: list[list[Output]]) -> str:
    """Markdown page of a notebook with its outputs."""
    left = iter(outputs)
    parts = []
    for kind, source in cells_of(notebook):
        if kind == "markdown":
            parts.append(source.replace("](../", "](../../"))  # the page is one folder deeper
        else:
            parts.append(f"```python\n{source}\n```")
            parts += [_block(output) for output in next(left)]
    title, *rest = parts
    link = f"{{download}}`Download this notebook <../{notebook.name}>` and run it in Jupyter."
    return "\n\n".join([title, link, *rest]) + "\n"


def _block(output: Output) -> str:
    """Markdown of an output."""
    ((kind, content),) = output.items()
    if kind == "text":
        return f"```text\n{content.rstrip()}\n```"
    if kind == "png":
        inner = f'<img alt="Output of the cell above" src="data:image/png;base64,{content}">'
    else:
        inner = _BORDER.sub("", _STYLE.sub("", content))
    inner = "".join(line.strip() for line in inner.splitlines())
    frame = '<div class="output" tabindex="0" role="region" aria-label="Output">'
    return f"```{{raw}} html\n{frame}{inner}</div>\n```"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))), encoding="utf-8")
