"""The folder of caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.utils.files import default_cache_dir


def test_an_empty_variable_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PRECEPTOR_CACHE", "")
    assert default_cache_dir() == tmp_path / "preceptor"
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
