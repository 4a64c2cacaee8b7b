"""Tables that notebooks show for models, predictions, manifests, map stores and studies."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import preceptor
import preceptor.results
from preceptor.config.image_format import ImageFormat
from preceptor.driver import StudyResult
from preceptor.maps.store import MapStore, StoreInfo
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.prediction import Prediction
from preceptor.predictor.reference import Unfamiliar
from preceptor.study.steps import Failure
from tests.calibrated import Calibrated
from tests.datasets import squares

NAME = '<b onclick="x">&'
"""Name that is not text as it stands: in HTML it must be escaped."""


class Cells(HTMLParser):
    """Tags and texts of a table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data


def shown(value: Any) -> list[str]:
    """Texts of the table that a notebook shows; nothing in it but the tags of tables."""
    cells = Cells(value._repr_html_())
    assert cells.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    return [text for text in cells.texts if text]


INFO = ModelInfo(
    ("real", NAME), NAME, ImageFormat(64), (0.5,) * 3, (0.5,) * 3, "net", "cam", {"eer": 0.4}, "1"
)


def test_a_model_and_its_prediction() -> None:
    assert shown(INFO)[:7] == ["Model", "backbone", "net", "classes", f"real, {NAME}",
                               "positive class", NAME]  # fmt: skip
    probabilities = np.array([0.25, 0.75], np.float32)
    map_of_it = np.zeros((2, 2), np.float32)
    one = Prediction(INFO, probabilities, NAME, map_of_it, NAME, (8, 6))
    texts = shown(one)
    assert texts[:5] == [f"Prediction: {NAME}", "score", "0.750", f"probability of {NAME}", "0.750"]
    assert "8 × 6 pixels" in texts
    assert "unfamiliar" not in texts
    for share, word in ((0.001, "yes"), (0.5, "no")):
        flagged = Prediction(INFO, probabilities, NAME, None, NAME, (8, 6),
                             unfamiliar=Unfamiliar(share, 0.01, 3.0))  # fmt: skip
        assert shown(flagged)[-2:] == ["unfamiliar", word]


def test_a_predictor_and_predictions(calibrated: Calibrated) -> None:
    predictor = preceptor.load(calibrated.folder, device="cpu", batch_size=4)
    texts = shown(predictor)
    assert texts[0] == "Predictor"
    assert texts[texts.index("classes") + 1] == "real, fake"
    assert texts[texts.index("unfamiliar images") + 1] == "flagged"
    images = np.zeros((12, 16, 16, 3), np.uint8)
    texts = shown(predictor(images))
    assert texts[:4] == ["12 predictions, the first 10", "image", "decision", "score"]
    assert len(texts) == 1 + 3 * 11


def test_a_guided_model() -> None:
    texts = shown(preceptor.build_model("test_resnet", ["real", NAME], weights="none"))
    assert texts[:5] == ["Guided model", "backbone", "test_resnet", "classes", f"real, {NAME}"]


def test_a_manifest(tmp_path: Path) -> None:
    table = pd.read_csv(squares(tmp_path))
    table["label"] = table["label"].replace("marked", NAME)
    texts = shown(preceptor.Manifest.from_frame(table, tmp_path))
    assert texts[:6] == ["Manifest of 60 images", "split", "images", NAME, "plain", "annotated"]
    assert texts[7:13] == ["train", "24", "12", "12", "24", "12"]


@pytest.mark.parametrize("images", [0, 3])
def test_a_map_store(images: int) -> None:
    info = StoreInfo(NAME, "cam", "squash", 64, ("real", "fake"), {})
    count = np.zeros(images)
    store = MapStore(
        info, np.array([NAME] * images, object), np.zeros((images, 2, 3), np.float16),
        count.astype(np.int32), count.astype(np.float32), error=count.astype(np.float32),
    )  # fmt: skip
    texts = shown(store)
    assert texts[:3] == [f"Map store of {images} images", "Teacher", NAME]
    assert ("2 × 3" in texts) == (images > 0)
    assert texts[-2:] == ["optional columns", "error"]


def test_a_study_and_its_tables(tmp_path: Path) -> None:
    failed = {key: Failure("train", NAME, "no memory") for key in ("one-id", "other-id")}
    result = StudyResult(tmp_path / "study", failed, missing=2, computed=5, seconds=3)
    texts = shown(result)
    assert "5 steps in 3.0 s" in texts
    assert texts[-4:] == [f"failed: {NAME}", "no memory"] * 2
    (tmp_path / "results.csv").write_text(
        f"role,auc,'{NAME.replace(chr(34), '')}'\nstudent,0.5,1\n"
    )
    texts = shown(preceptor.results.read(tmp_path))
    assert texts[:7] == ["Tables of a study", "table", "rows", "columns", "results", "1",
                         f"role, auc, '{NAME.replace(chr(34), '')}'"]  # fmt: skip
