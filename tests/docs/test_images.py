"""Pictures of the documents: each is shown, and the script that makes it is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT

IMAGES = sorted((ROOT / "docs" / "images").iterdir())
SCRIPTS = {
    "budget": "docs/evidence_tables.py",
    "evidence": "docs/evidence_tables.py",
    "front": "docs/pictures/guidance_pictures.py",
    "guidance": "docs/pictures/guidance_pictures.py",
    "label": "docs/pictures/label_pictures.py",
    "method": "docs/pictures/method_pictures.py",
}
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: str(image.name))
def test_it_is_shown_and_its_script_is_named(image: Path) -> None:
    shown = [page for page, text in TEXTS.items() if f"images/{image.name}" in text]
    assert shown, "no page shows it"
    script = SCRIPTS[re.split(r"[-.]", image.name)[0]]
    assert (ROOT / script).is_file()
    if image.name == "front.png":  # its caption leads there
        shown = [ROOT / "docs" / "method.md"]
    assert any(script in TEXTS[page] for page in shown), f"no page that shows it names {script}"
