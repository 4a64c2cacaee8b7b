"""Words of the documents: those that `docs/wording.txt` replaces are not used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT

LINES = (ROOT / "docs" / "wording.txt").read_text(encoding="utf-8").splitlines()
WORDS = dict(line.split(": ", 1) for line in LINES if line and not line.startswith("#"))
CODE = re.compile(
    r"^```.*?^```|^(?: {4,}|>).*?$|`[^`\n]*`|<!--.*?-->|\]\([^)]*\)|“[^”]*”|\"[^\"\n]*\"",
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_words(page: Path) -> None:
    text = CODE.sub(" ", page.read_text(encoding="utf-8"))
    found = {
        word: instead
        for word, instead in WORDS.items()
        if re.search(rf"\b{re.escape(word)}s?\b", text, re.IGNORECASE)
    }
    assert not found
