"""The demo: a shortened run of it, its bars and its page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from preceptor.cli import demo
from tests.studies import without_workers


def test_a_short_demo_ends_with_bars_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage", reason="the textures are scikit-image's")
    values = yaml.safe_load(demo.SETTINGS.read_text())
    values["decoys"] |= {"train": 40, "val": 20, "val_noshort": 20, "test": 20}
    values["study"] |= {"seeds": 2, "annotated": 10}
    values["study"]["training"] |= {"batch_size": 4, "steps": 2}
    monkeypatch.setattr(demo, "SETTINGS", tmp_path / "demo.yaml")
    demo.SETTINGS.write_text(yaml.safe_dump(values))
    lines: list[str] = []
    with without_workers():
        result = demo.run_demo(tmp_path, 1, 3, lines.append)
    assert not result.failed
    assert result.missing == 0
    assert "5 minutes" in lines[0]
    assert len(set(lines)) == len(lines)
    assert not any("{seed}" in line or "duplicate" in line for line in lines)

    shown = demo.show_demo(result.folder).splitlines()
    assert all(len(line) <= 80 for line in shown[:-1])
    table = pd.read_csv(result.folder / "table.csv").set_index(["set", "key"])
    for key, title in demo.ROWS.items():
        (bar,) = (line for line in shown if line.startswith(title.format(marked=10)))
        assert bar.endswith(f" {table.loc[('test', key), 'accuracy']:.0%}")
    page = (tmp_path / "demo.html").read_text()
    assert page.count("<figure ") == 6
    assert page.count("<img ") == 18
    assert "exact p" in page
    assert (tmp_path / "study-3" / "report.html").is_file()
    assert 'href="study-3/report.html"' in page
    assert demo.run_demo(tmp_path, 1, 3, lines.append).computed == 0
