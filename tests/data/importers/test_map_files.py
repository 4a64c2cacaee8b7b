"""Maps that wait for being written are limited by their bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.importers import map_files
from preceptor.data.importers.map_files import MapFiles


def test_large_maps_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_files, "_BYTES", 1000)
    with MapFiles(tmp_path) as files:
        for at, side in enumerate((10, 20, 20, 20, 50, 10)):
            files.save(f"{at}.png", np.full((side, side), at, np.uint8))
            waiting = sum(size for _, size in files._waiting)
            assert waiting <= 1000 or len(files._waiting) == 1
    for at, side in enumerate((10, 20, 20, 20, 50, 10)):
        found = np.asarray(Image.open(tmp_path / f"{at}.png"))
        assert (found == at).all()
        assert found.shape == (side, side)
