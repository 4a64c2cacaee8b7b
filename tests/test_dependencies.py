"""The dependencies of pyproject.toml against the imports of the source."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Where the module is not called as the distribution is.
MODULES = {"pyyaml": "yaml", "pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"}
# pydantic_core is pydantic's own other half, which pydantic pins.
WITH = {"pydantic": {"pydantic_core"}}
# Files that only a late import reaches, so that a plain installation never loads them.
OPTIONAL = {
    "auditing/models.py": "onnx",
    "benchmark/decoys.py": "demo",
    "data/images.py": "dicom",
    "deploy/export.py": "onnx",
    "deploy/http_server.py": "web",
    "deploy/serve.py": "web",
    "execution/ray.py": "ray",
    "execution/ray_connection.py": "ray",
    "label/app.py": "web",
}


@cache
def project() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["project"])


# Of these, the extra itself is imported inside functions, so that anybody may import them.
INSIDE = {"auditing/models.py", "data/images.py", "deploy/export.py"}


def modules(requirements: list[str]) -> set[str]:
    found = set()
    for requirement in requirements:
        name = re.split(r"[\[<>=~! ]", requirement.lower())[0]
        found |= {MODULES.get(name, name.replace("-", "_"))} | WITH.get(name, set())
    return found


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imported(file: Path) -> set[str]:
    """Third-party modules that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"preceptor"}


def test_a_plain_installation_has_every_module_that_is_imported() -> None:
    hard = modules(project()["dependencies"])
    source = ROOT / "src" / "preceptor"
    used: set[str] = set()
    for file in source.rglob("*.py"):
        name = file.relative_to(source).as_posix()
        extra = OPTIONAL.get(name)
        of_extra = modules(project()["optional-dependencies"][extra]) if extra else set()
        missing = imported(file) - hard - of_extra
        assert not missing, f"{name}: {missing} are no hard dependencies"
        used |= imported(file)
    needless = hard - used - {"pydantic_core"}
    assert not needless, f"never imported: {needless}"


def test_modules_of_an_extra_are_imported_late() -> None:
    source = ROOT / "src" / "preceptor"
    for file in source.rglob("*.py"):
        own = OPTIONAL.get(file.relative_to(source).as_posix(), "")
        for node in parsed(file).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                goal = node.module.removeprefix("preceptor.").replace(".", "/") + ".py"
                late = OPTIONAL.get(goal, own) != own and goal not in INSIDE
                assert not late, f"{file}: {node.module} belongs inside a function"


def test_every_dependency_says_its_license_and_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("\ndependencies = [\n")[1].split("\n]")[0]
    for line in block.splitlines():
        assert re.search(r'",  # (BSD|MIT|MIT-CMU|PSF|Apache-2.0); \w.{8}', line), line


def test_the_palette_is_that_of_matplotlib() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="the oracle of 64 colors")
    import numpy as np

    from preceptor.report.palette import MAGMA

    colors = (matplotlib.colormaps["magma"](np.linspace(0, 1, 64))[:, :3] * 255).round()
    assert colors.astype(np.uint8).tobytes() == MAGMA
