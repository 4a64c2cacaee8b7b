"""Mutated requests: refused or answered, never more."""

from __future__ import annotations

from pathlib import Path

from tests.label.fuzzing import fuzz
from tests.label.serving import Running


def test_mutated_requests_break_nothing(server: Running, tmp_path: Path) -> None:
    statuses = fuzz(server, tmp_path / "canary.txt", 600)
    for status in (200, 400, 403, 404):
        assert statuses[status], statuses
