"""Text files are UTF-8, whatever the locale is."""

from __future__ import annotations

import ast
import locale
import sys
from pathlib import Path

from preceptor.models.build import build_model, load_model, save_model
from tests import forked

SOURCE = Path(__file__).resolve().parents[1] / "src"


def keep_model() -> None:
    """Write and read a model where the locale knows ASCII only."""
    locale.setlocale(locale.LC_ALL, "C")
    assert locale.getpreferredencoding(False).upper() in ("ANSI_X3.4-1968", "US-ASCII", "646")
    classes = ["gr\u00fcn", "\u8d64"]
    model = build_model("test_byobnet", classes=classes, weights="none", input_size=32)
    save_model(model, Path(sys.argv[1]))
    assert load_model(Path(sys.argv[1])).spec.classes == model.spec.classes


def without_encoding(file: Path) -> list[int]:
    """Lines that open, read or write a text file in the encoding of the locale."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(one.arg == "encoding" for one in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = [one.value for one in node.args if isinstance(one, ast.Constant)]
        if name in ("read_text", "write_text"):
            is_text = isinstance(node.func, ast.Attribute) and "utf-8" not in given
        elif name == "open":
            modes = {one for one in given if isinstance(one, str) and set(one) <= set("rwabx+t")}
            is_text = isinstance(node.func, ast.Name) and not modes
            is_text |= any("b" not in mode for mode in modes)
        else:
            is_text = False
        if is_text:
            found.append(node.lineno)
    return found


def test_every_text_file_has_an_encoding() -> None:
    found = {str(file.relative_to(SOURCE)): without_encoding(file) for file in SOURCE.rglob("*.py")}
    assert {file: lines for file, lines in found.items() if lines} == {}


def test_a_model_with_classes_beyond_ascii_is_kept_in_any_locale(tmp_path: Path) -> None:
    done = forked.run(keep_model, [tmp_path / "model"])
    assert done.returncode == 0, done.stderr
