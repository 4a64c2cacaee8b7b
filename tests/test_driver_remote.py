"""A study on remote images: the tables and the pictures of local files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from preceptor.study.config import StudyConfig
from tests.datasets import squares
from tests.fault_server import fault_server
from tests.shards import contents_of, moved
from tests.studies import SETTINGS, run_serially, same_tables

SECRET = "s3cr3t"


def test_a_study_on_remote_images_is_that_on_local_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images behind a busy server."""
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("preceptor.data.remote._WAITS", (0.0,) * 4)
    source = squares(tmp_path / "data")
    images = contents_of(source, "path")
    local = moved(source, source.with_name("images.csv"), "{path}")
    with fault_server(files=images) as server:
        server.busy.update(dict.fromkeys(list(images)[::4], 3))
        server.cut.update(dict.fromkeys(list(images)[::3], 1))
        signed = f"{server.address}/{{path}}?signature={SECRET}"
        (tmp_path / "elsewhere").mkdir()
        remote = moved(source, tmp_path / "elsewhere" / "images.csv", signed, "../data/{path}")
        settings = SETTINGS | {"controls": [], "ceiling": False}
        for manifest, out in ((local, "local"), (remote, "remote")):
            config = StudyConfig.model_validate(settings | {"manifest": manifest})
            assert not run_serially(config, tmp_path / out).failed
    same_tables(tmp_path / "local", tmp_path / "remote")
    pages = [(tmp_path / out / "report.html").read_text() for out in ("local", "remote")]
    pictures = [sorted(re.findall(r"data:image/(?:jpeg|png|webp)[^\"']+", page)) for page in pages]
    assert len(pictures[0]) > 3
    assert pictures[0] == pictures[1]
    for file in (tmp_path / "remote").rglob("*"):
        if file.suffix in (".html", ".csv", ".json", ".txt", ".log", ".md", ".yaml"):
            assert SECRET not in file.read_text(encoding="utf-8"), file
    assert json.loads((tmp_path / "remote" / "selection.json").read_text())
