"""The study files that come with the project: they are read, and say what their comments say."""

from __future__ import annotations

from pathlib import Path

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
