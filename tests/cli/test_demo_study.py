"""The demo: its settings, and a shortened run of it on small crops."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from preceptor.benchmark import forgeries
from preceptor.cli import study as demo
from tests.studies import without_workers


def test_a_short_demo_ends_with_all_rows_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage", reason="the forged photographs are scikit-image's")
    small = forgeries.PRESETS["demo"].model_copy(
        update={"train": 48, "val": 12, "val_noshort": 12, "test_seen": 12, "test_unseen": 12}
    )
    monkeypatch.setitem(forgeries.PRESETS, "demo", small)
    short = demo.DEMO | {
        "seeds": 2,
        "annotated": 12,
        "training": demo.DEMO["training"] | {"batch_size": 8, "steps": 2, "epochs": 1},
    }
    monkeypatch.setattr(demo, "DEMO", short)
    lines: list[str] = []
    with without_workers():
        result = demo.run_demo(tmp_path, 1, 3, lines.append)
    assert not any("{seed}" in line for line in lines)
    assert not result.failed
    assert result.missing == 0
    table = pd.read_csv(result.folder / "table.csv")
    rows = set(table.loc[table["set"] == "test-seen", "key"])
    assert {"baseline1", "baseline2", "student", "shuffled", "centre"} <= rows
    for seed in range(3, 3 + demo.DEMO["seeds"]):
        record = tmp_path / "forged_photographs" / str(seed) / "settings.json"
        assert json.loads(record.read_text())["settings"]["stamp_place"] == "moving"
    assert demo.run_demo(tmp_path, 1, 3, lines.append).computed == 0
