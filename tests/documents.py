"""Pages of the documentation, and the words that they do not use."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "benchmarks" / "evidence" / "README.md"
# Those of docs/reference/generated are written from the code by the build of the site.
PAGES = [
    page
    for page in [ROOT / "README.md", ARCHIVE, *sorted((ROOT / "docs").rglob("*.md"))]
    if "generated" not in page.parts
]
LINES = (ROOT / "docs" / "wording.txt").read_text(encoding="utf-8").splitlines()
WORDS = dict(line.split(": ", 1) for line in LINES if line and not line.startswith("#"))
CODE = re.compile(
    r"^```.*?^```|^(?: {4,}|>).*?$|`[^`\n]*`|<!--.*?-->|\]\([^)]*\)|“[^”]*”|\"[^\"\n]*\"",
    re.MULTILINE | re.DOTALL,
)


def forbidden(markdown: str) -> dict[str, str]:
    """Words of a page that others replace, and what to say instead."""
    text = CODE.sub(" ", markdown)
    return {
        word: instead
        for word, instead in WORDS.items()
        if re.search(rf"\b{re.escape(word)}s?\b", text, re.IGNORECASE)
    }


def docs_module(name: str) -> ModuleType:
    """Module of the folder of the pages, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their types up
    spec.loader.exec_module(module)
    return module
