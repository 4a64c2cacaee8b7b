"""Local copies of a test lie in its own folder, and requests are repeated at once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRECEPTOR_REMOTE_WAIT", "0.001")
    monkeypatch.setenv("PRECEPTOR_REMOTE_ATTEMPTS", "4")
