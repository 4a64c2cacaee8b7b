"""The scripts in benchmarks/ import names that exist, and answer --help before they run."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))
# Names of earlier revisions, which a script that compares revisions tries second.
EARLIER = {("preceptor.data", "loader")}


def exists(module: str, name: str) -> bool:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("preceptor"):
            pytest.skip(f"{error.name} of an extra is not installed")
        return False
    if hasattr(found, name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_what_a_script_imports_is_there(script: Path) -> None:
    names = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preceptor")
        for alias in node.names
    ]
    assert not [pair for pair in names if pair not in EARLIER and not exists(*pair)]  # type: ignore[arg-type]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_that_imports_tests_finds_them_from_any_folder(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    if any(
        isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests")
        for node in ast.walk(ast.parse(source))
    ):
        assert "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))" in source


def before_the_arguments(statement: ast.stmt) -> bool:
    """Whether a statement only prepares the parser: its options, or a table of their choices."""
    if isinstance(statement, ast.Assign):
        return isinstance(statement.value, ast.Dict | ast.DictComp | ast.List) or (
            "argparse" in ast.unparse(statement.value)
        )
    return isinstance(statement, ast.Expr) and (
        isinstance(statement.value, ast.Constant) or ast.unparse(statement).startswith("parser.")
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_reads_its_arguments_before_anything_else(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    if "__main__" not in source:
        return
    (main,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    read = next((one for one in main.body if ".parse_args()" in ast.unparse(one)), None)
    assert read is not None, "--help would run it"
    ahead = main.body[: main.body.index(read)]
    assert [ast.unparse(one) for one in ahead if not before_the_arguments(one)] == []
