"""What all tests share: caches stay in the test's own folder, hubs are never asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy with something else must not fail a test.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def magnetic_tile() -> Path:
    """The folder of the magnetic tile data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("MAGNETIC_TILE", SHARED / "data" / "magnetic_tile"))
    if not (folder / "manifest.csv").is_file():
        pytest.skip("the magnetic tile data is not here; set MAGNETIC_TILE to its folder")
    return folder


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """The folder of ImageNet weight files; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("WEIGHTS", SHARED / "weights"))
    if not (folder / "mobilenetv2_100.safetensors").is_file():
        pytest.skip("the ImageNet weight files are not here; set WEIGHTS to their folder")
    return folder
