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

# Files that run whole studies, start Ray, a browser or several processes.
SLOW = {
    "benchmark/test_evidence.py",
    "cli/test_demo.py",
    "cli/test_terminal.py",
    "execution/test_executors.py",
    "execution/test_local.py",
    "execution/test_make_maps.py",
    "execution/test_ray.py",
    "execution/test_shared_store.py",
    "report/test_browser.py",
    "report/test_card.py",
    "report/test_export.py",
    "report/test_graph_figure.py",
    "report/test_panel_files.py",
    "report/test_questions.py",
    "report/test_report.py",
    "report/test_verdict_and_panels.py",
    "results/test_budgets.py",
    "results/test_score_files.py",
    "results/test_study.py",
    "study/test_levers.py",
    "study/test_rise_study.py",
    "test_driver.py",
    "tracking/test_curves.py",
    "tracking/test_mlflow.py",
    "tracking/test_tensorboard.py",
    "tracking/test_trackers.py",
    "training/test_launch.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `SLOW` files."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).as_posix() in SLOW:
            item.add_marker(pytest.mark.slow)


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
