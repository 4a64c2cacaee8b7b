"""Page of the error messages, made from the code that raises them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "preceptor"
_BASE = "PreceptorError"


def errors_page() -> str:
    """Page of all messages by package, with the exit code of their commands."""
    trees = {
        file.relative_to(SOURCE): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(SOURCE.rglob("*.py"))
    }
    codes = _exit_codes(trees.values())
    constants = _constants(trees.values())
    found: dict[str, dict[str, int]] = {}
    for file, tree in trees.items():
        room = file.parts[0] if len(file.parts) > 1 else file.stem
        for name, message in _messages(tree, codes, constants):
            found.setdefault(room, {}).setdefault(message, codes[name])
    parts = [
        "# Error messages\n",
        "An error is one line: the file, row, key or option, the problem, and what to do. Commands "
        "print it after `error:`; in Python it is the message of a `preceptor.errors."
        "PreceptorError`. This page lists the messages by the package of the code that raises "
        "them. Names in braces are filled in, … stands for further text. The exit code is 2 "
        "(invalid input), or 1 where a message ends with (1).\n",
        "All problems in the rows of a manifest or in an annotation file are listed below one such "
        "line. [Commands](commands.md) and [configuration files](config.md) describe the options "
        "and keys.\n",
    ]
    for room, messages in sorted(found.items()):
        parts.append(f"## {room}\n")
        parts += [
            f"- `{message}`{' (1)' if code == 1 else ''}"
            for message, code in sorted(messages.items(), key=lambda item: item[0].lower())
        ]
        parts.append("")
    return "\n".join(parts)


def _exit_codes(trees: Iterable[ast.Module]) -> dict[str, int]:
    """Exit codes of the library's exceptions, by name."""
    classes = {
        node.name: node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    codes = {_BASE: 1}
    while True:
        new = {
            name: _own_code(node, codes[base.id])
            for name, node in classes.items()
            for base in node.bases
            if name not in codes and isinstance(base, ast.Name) and base.id in codes
        }
        if not new:
            return codes
        codes |= new


def _own_code(node: ast.ClassDef, inherited: int) -> int:
    for one in node.body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "exit_code":
            return int(ast.unparse(one.value))
    return inherited


def _constants(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Values that modules give names in capital letters, if one name is one value."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                name = ast.unparse(node.targets[0])
                if name.isupper() and isinstance(node.value.value, str | int):
                    found.setdefault(name.strip("_"), set()).add(str(node.value.value))
    return {name: min(texts) for name, texts in found.items() if len(texts) == 1}


def _messages(
    tree: ast.Module, codes: dict[str, int], constants: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Exceptions of the library that a module raises: class and message."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name = ast.unparse(node.exc.func)
            message = _text(node.exc.args[0], constants)
            if name in codes and message is not None:
                yield name, message


def _text(value: ast.expr, constants: dict[str, str]) -> str | None:
    """Message with the names of its parts in braces; None if it is computed elsewhere."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        parts = [value.value]
    elif isinstance(value, ast.JoinedStr):
        parts = [
            str(one.value) if isinstance(one, ast.Constant) else _part(one) for one in value.values
        ]
    else:
        return None
    whole = re.sub(r"{(\w+)}", lambda one: constants.get(one[1], one[0]), "".join(parts))
    text = re.sub(r"…[\s…]*…", "…", " ".join(whole.split())).replace("`", "'")
    return text if len(re.findall(r"[a-z]{2,}", re.sub(r"{\w+}", "", text))) > 1 else None


def _part(value: ast.expr) -> str:
    """Name of a part of a message, or … for an expression."""
    inner = value.value if isinstance(value, ast.FormattedValue) else value
    if isinstance(inner, ast.Attribute):
        return f"{{{inner.attr.strip('_')}}}"
    return f"{{{inner.id.strip('_')}}}" if isinstance(inner, ast.Name) else "…"
