"""Words of the documents: those that `docs/wording.txt` replaces are not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, forbidden


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_words(page: Path) -> None:
    assert not forbidden(page.read_text(encoding="utf-8"))
