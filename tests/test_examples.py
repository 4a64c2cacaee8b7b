"""The study files that come with the project: they are read, and say what their comments say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from preceptor.config.files import load_config
from preceptor.config.training import StudyTraining
from preceptor.study.config import StudyConfig

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "examples" / "paper" / "study.yaml"
FILES = sorted(ROOT.glob("examples/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_read(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = "FORGED SPOTS BRAIN_MRI PLANTED PLANTED_CRACKS CORNER MAGNETIC_TILE CIRCUIT_BOARDS"
    for name in (*data.split(), "ROAD_CRACKS", "DATA", "WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    study = load_config(file, StudyConfig)
    assert study.positive in ("forged", "defect", "tumour", "crack")
    assert study.training.steps  # every side sees the same number of images


@pytest.mark.parametrize("recipe", ["paper", "cyborg"])
def test_the_study_of_the_paper_is_read(
    recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UND", str(tmp_path))
    monkeypatch.setenv("RECIPE", recipe)
    study = load_config(PAPER, StudyConfig)
    assert study.training == StudyTraining(recipe=recipe)  # type: ignore[arg-type]
    assert (study.seeds, study.saliency, study.data_driven) == (10, ("cam", "rise"), True)
    assert study.published == "teaching-ai-to-teach"


def test_the_notebook_runs(tmp_path: Path) -> None:
    """With fewer steps, which say nothing; the outputs that are kept come from a whole run."""
    book = json.loads((ROOT / "examples" / "audit_repair_teach.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    kept = json.dumps([cell.get("outputs") for cell in book["cells"]])
    assert len(cells) <= 10
    assert "Shown: what lies outside the marks decides" in kept
    assert not re.search(r"/(home|root|tmp|work)/", kept), "no path of a machine"
    text = "\n".join(cells)
    for whole, short in (('"steps": 200', '"steps": 20'), ('"train": 1000', '"train": 300')):
        assert whole in text
        text = text.replace(whole, short)
    command = [sys.executable, "-W", "ignore", "-c", text]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    assert {"student", "student_repair"} <= set(table["key"])
