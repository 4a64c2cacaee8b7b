"""A server that is killed loses nothing that it has acknowledged; benchmarks/label_kill.py is
larger.
"""

from __future__ import annotations

from pathlib import Path

from tests.commands import here
from tests.label.crowd import kill_while_people_draw


def export(database: Path, to: Path) -> None:
    told = here("label", "export", database, "--to", to)
    assert told.code == 0, told


def test_a_killed_server_has_every_acknowledged_stroke(tmp_path: Path) -> None:
    counts = kill_while_people_draw(tmp_path, people=3, kills=2, between=2.0, export=export)
    assert counts["acknowledged"] > 0
    assert counts["kept"] == counts["exported"] == counts["acknowledged"]
    assert counts["different"] == counts["unknown"] == 0
