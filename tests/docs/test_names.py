"""Names of the library in the documents, each one of the code, and words that are not used."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, forbidden

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
DOTTED = re.compile(r"(?<![\w/.@-])preceptor(?:\.\w+)+")
UNDERSCORED = re.compile(r"(?<![\w./-])[a-z]+(?:_[a-z0-9]+)+(?![\w/-]|\.\w)")
SOURCES = sorted(
    file for file in (ROOT / "src").rglob("*") if file.suffix in {".py", ".js", ".html"}
)
WORDS = set(re.findall(r"\w+", "\n".join(file.read_text(encoding="utf-8") for file in SOURCES)))
# Names of other libraries.
OTHERS = {"adaptive_avg_pool2d", "convnext_tiny", "label_names"}
OTHERS |= {"process_resident_memory_bytes", "remove_unused_columns", "test_byobnet"}
# The names of metrics are made of a prefix, a name and a suffix.
METRIC = re.compile(r"preceptor_[a-z_]+")


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or a member of one."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        for part in parts[number:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def unknown(text: str) -> Iterator[str]:
    """Names of a page that the code does not have."""
    yield from (name for name in sorted(set(DOTTED.findall(text))) if not exists(name))
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        yield from (
            name
            for name in UNDERSCORED.findall(code)
            if name not in WORDS | OTHERS and not METRIC.fullmatch(name)
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_they_exist(page: Path) -> None:
    assert not list(unknown(page.read_text(encoding="utf-8")))


def test_wrong_names_are_found() -> None:
    text = "`alpha_begin`, `alpha: 0.1`, `preceptor.gide`, `preceptor.saliency.cam.decision`"
    assert list(unknown(text)) == [
        "preceptor.gide",
        "preceptor.saliency.cam.decision",
        "alpha_begin",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_word_is_one_that_the_list_replaces(page: Path) -> None:
    assert not forbidden(page.read_text(encoding="utf-8"))
