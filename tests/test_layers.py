"""The order of packages: who may import whom, read from the syntax of every module."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"

# From the bottom to the top; a package imports from levels before its own, and from itself.
LEVELS = """
version errors, utils, config metrics benchmark, data, saliency, losses models maps, annotations,
inference, training, study, execution results, report, study_folder, driver, deploy,
auditing, label, cli, __main__
"""
ORDER = [set(level.split()) for level in LEVELS.split(",")]
NEVER = {
    "metrics": {"torch"},
    "saliency": {"models"},
    "data": {"models"},
    "study": {"execution"},
    "execution": {"results", "report"},
    "results": {"report"},
}
# Optional dependencies and quick commands: these may import inside functions, and what is optional
# may be imported there. `deploy.predictor` imports what runs a model: torch or ONNX Runtime.
LATE = ("cli.", "execution.ray", "data.store", "data.checks")
LATE += ("label.sources", "deploy.predictor", "deploy.export", "auditing.models")
# Packages that hand on public names, when they are asked for; "" is the whole.
HAND_ON = ("", "annotations", "results")


@cache
def imports() -> dict[tuple[str, str], bool]:
    """(module, imported module): whether it is imported at the top of the file."""
    files = {name_of(file): file for file in SOURCE.rglob("*.py")}
    found: dict[tuple[str, str], bool] = {}
    for name, file in files.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        types = [node for node in tree.body if isinstance(node, ast.If)]  # TYPE_CHECKING
        at_top = [*tree.body, *(node for block in types for node in block.body)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                goals = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                goals = [one if name_in(one) in files else node.module for one in inner]
            else:
                continue
            for goal in goals:
                key = (name, name_in(goal) if goal.startswith("preceptor") else f":{goal}")
                found[key] = found.get(key, False) or node in at_top
    return found


def name_of(file: Path) -> str:
    """A module's name without the package's; "" is the package."""
    parts = file.relative_to(SOURCE / "preceptor").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def name_in(dotted: str) -> str:
    return dotted.removeprefix("preceptor").lstrip(".")


def level(name: str) -> int:
    room = name.split(".")[0]
    return next((at for at, rooms in enumerate(ORDER) if room in rooms), len(ORDER))


def offenders() -> dict[tuple[str, str], str]:
    """(module, imported module): what is wrong with it."""
    found: dict[tuple[str, str], str] = {}
    for (name, goal), at_top in imports().items():
        room, other = name.split(".")[0], goal.lstrip(":").split(".")[0]
        if name in HAND_ON:
            continue
        if other in NEVER.get(room, ()):
            found[name, goal] = f"{room} never imports {other}"
        elif not goal.startswith(":") and room != other and level(goal) >= level(name):
            found[name, goal] = "upward"
        elif goal.startswith(f"{name}."):  # a package's name of its own, when it is asked for
            continue
        elif not (goal.startswith(":") or at_top or name.startswith(LATE) or goal in LATE):
            found[name, goal] = "late"
    return found


def test_imports_go_down() -> None:
    assert offenders() == {}


def test_modules_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, goal in imports():
        if name and name != goal and not goal.startswith(":"):
            graph.setdefault(name, set()).add(goal)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def test_the_root_holds_few_modules() -> None:
    root = [file.stem for file in (SOURCE / "preceptor").glob("*.py")]
    assert len(set(root) - {"__init__"}) <= 6
    assert {one for rooms in ORDER for one in rooms} >= set(root) - {"__init__"}


def test_tests_import_no_tests() -> None:
    """What several test files need lies in a module of helpers, in a fixture, or in `conftest`."""
    for file in (SOURCE.parent / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                assert not (node.module or "").split(".")[-1].startswith("test_"), file
