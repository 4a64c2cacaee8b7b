"""A sound manifest in a folder."""

from pathlib import Path

import pytest

from tests.data.sound_manifest import save, sound, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, two of them with maps, and a sound manifest."""
    for name in "abcdef":
        save(tmp_path / "images" / f"{name}.png")
    for name in "ab":
        save(tmp_path / "maps" / f"{name}.png", (4, 3), "L")
    write(tmp_path, *sound())
    return tmp_path
