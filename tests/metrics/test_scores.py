"""Score tables: their files, and log-odds, by which images are ranked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.inference.score import evaluate
from preceptor.metrics.auc import auc, log_odds, macro_auc
from preceptor.metrics.scores import (
    check_score_file,
    compare_sets,
    deployed_scores,
    figures,
    fixed_thresholds,
    set_auc,
    stack,
    write_scores,
)
from preceptor.models.build import build_model
from tests.datasets import squares

SCORES = pd.DataFrame(
    {"path": ["a"], "label": ["x"], "split": ["val"], "source": [""], "group": [""]}
).assign(score_x=0.4, score_y=0.6)


def test_an_earlier_score_table_may_be_replaced(tmp_path: Path) -> None:
    check_score_file(tmp_path / "new.parquet")
    write_scores(SCORES, tmp_path / "scores.parquet")
    check_score_file(tmp_path / "scores.parquet")
    write_scores(SCORES.drop(columns="group"), tmp_path / "scores.parquet")
    check_score_file(tmp_path / "scores.parquet")


@pytest.mark.parametrize("name", ["m.csv", "m.parquet", "a.png", "empty", "cut.parquet", "."])
def test_nothing_else_is_replaced(tmp_path: Path, name: str) -> None:
    manifest = Manifest.read(squares(tmp_path / "data"))
    manifest.write(tmp_path / "m.csv")
    manifest.write(tmp_path / "m.parquet")
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "empty").touch()
    write_scores(SCORES, tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-9])
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    model = build_model("test_resnet", ["marked", "plain"], positive="marked", input_size=32)
    with pytest.raises(InputError, match=r"is not a score table|is a folder"):
        evaluate(model, manifest, out=tmp_path / name)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_a_manifest_with_a_column_of_scores_is_no_score_table(tmp_path: Path) -> None:
    write_scores(SCORES.assign(saliency=""), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="not a score table"):
        check_score_file(tmp_path / "m.parquet")


def _logits(seed: int = 0, shift: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and log-odds of an overconfident model: nearly all images far on one side."""
    random = np.random.default_rng(seed)
    labels = np.repeat([False, True], 100)
    return labels, (labels + random.normal(size=200)) * 15 + shift


def _frame(labels: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    both = torch.from_numpy(np.stack([np.zeros_like(logits), logits], 1)).softmax(1).numpy()
    return pd.DataFrame(
        {
            "path": [f"{index}.png" for index in range(len(labels))],
            "label": np.where(labels, "fake", "real"),
            "split": "val",
            "source": "",
            "group": "",
            "score_real": both[:, 0],
            "score_fake": both[:, 1],
        }
    )


def test_log_odds_are_those_of_the_logits() -> None:
    logits = np.array([-700.0, -50, -1, 0, 1, 50, 700])
    given = torch.from_numpy(np.stack([np.zeros(7), logits], 1)).softmax(1).numpy()
    np.testing.assert_allclose(log_odds(given)[:, 1], logits, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_odds(given)[:, 0], -logits, rtol=1e-9, atol=1e-9)


def test_log_odds_of_many_classes_are_against_all_others() -> None:
    logits = torch.tensor([[60.0, 1, 2, 3], [0, 0, 0, 0], [-5, 90, 3, 88]], dtype=torch.float64)
    others = torch.stack(
        [
            torch.cat([logits[:, :place], logits[:, place + 1 :]], 1).logsumexp(1)
            for place in range(4)
        ],
        1,
    )
    found = log_odds(logits.softmax(1).numpy())
    np.testing.assert_allclose(found, (logits - others).numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scores", [[[2.0, 3.0]], [[-1.0, 2.0]], [[0.2, 0.2]]])
def test_scores_that_are_no_probabilities_stay_as_they_are(scores: list[list[float]]) -> None:
    assert log_odds(scores).tolist() == scores


def test_the_auc_of_an_overconfident_model_is_that_of_its_logits() -> None:
    labels, logits = _logits()
    frame, truth = _frame(labels, logits), auc(labels, logits)
    assert (frame["score_fake"] == 1).mean() > 0.5
    assert auc(labels, frame["score_fake"]) != pytest.approx(truth, abs=0.01)  # what is avoided
    for classes in (["real", "fake"], ["fake", "real"]):
        assert set_auc(frame, classes, "fake") == pytest.approx(truth)
        assert set_auc(frame, classes, "real") == pytest.approx(truth)
        assert set_auc(frame, classes, None) == pytest.approx(truth)
    (row,) = figures(frame, ["real", "fake"], "fake").to_dict("records")
    (other,) = figures(frame, ["real", "fake"], "real").to_dict("records")
    assert row["auc"] == pytest.approx(truth) == other["auc"]
    assert row["eer"] == pytest.approx(other["eer"])


def test_stacked_scores_and_delongs_test_rank_by_log_odds() -> None:
    labels, logits = _logits()
    frame, other = _frame(labels, logits), _frame(*_logits(1))
    truth, scores, _ = stack([frame, other], "val", ["real", "fake"], "fake")
    assert auc(truth, scores[0]) == pytest.approx(auc(labels, logits))
    _, both, _ = stack([frame], "val", ["real", "fake"], None)
    assert macro_auc(labels.astype(int), both[0]) == pytest.approx(auc(labels, logits))
    (row,) = compare_sets(frame, other, ["real", "fake"], "fake").to_dict("records")
    assert row["auc_a"] == pytest.approx(auc(labels, logits))


def test_a_rule_that_would_classify_no_image_as_positive_has_no_threshold() -> None:
    """Half of the negatives have the float32 score 1, so that no threshold excludes all but 5 %."""
    labels, logits = _logits(shift=30)
    frame = _frame(labels, logits)
    scores = deployed_scores(frame, "fake")
    assert (scores[~labels] == 1).mean() > 0.05
    assert fixed_thresholds(frame, "fake", ["fdr=0.05", "eer"]).keys() == {"eer"}
