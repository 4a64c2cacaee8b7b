"""Score tables and `preceptor evaluate`: files, log-odds, splits, one model against another."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, ProblemsError
from preceptor.inference.predict import evaluate
from preceptor.metrics.auc import auc, log_odds, macro_auc
from preceptor.metrics.operating_points import threshold_rates
from preceptor.metrics.paired_tests import delong
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
from preceptor.metrics.split_names import kind_of, kind_or_none
from preceptor.models.build import build_model, save_model
from tests.commands import Outcome, here
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


def test_a_source_of_positives_is_evaluated_with_borrowed_negatives() -> None:
    score = np.random.default_rng(0).uniform(size=60)
    frame = pd.DataFrame(
        {
            "path": range(60),
            "label": ["real"] * 20 + ["fake"] * 40,
            "split": ["val"] * 40 + ["val-unseen"] * 20,
            "source": ["camera"] * 20 + ["g1"] * 20 + ["g2"] * 10 + ["g3"] * 10,
            "score_real": 1 - score,
            "score_fake": score,
        }
    )
    found = figures(frame, ["real", "fake"], "fake", "val").set_index(["set", "source"])
    expected = auc(np.repeat([False, True], [20, 10]), np.r_[score[:20], score[40:50]])
    assert found.loc[("val-unseen", "g2"), "auc"] == pytest.approx(expected)


def test_a_rule_that_would_classify_no_image_as_positive_has_no_threshold() -> None:
    """Half of the negatives have the float32 score 1, so that no threshold excludes all but 5 %."""
    labels, logits = _logits(shift=30)
    frame = _frame(labels, logits)
    scores = deployed_scores(frame, "fake")
    assert (scores[~labels] == 1).mean() > 0.05
    assert fixed_thresholds(frame, "fake", ["fdr=0.05", "eer"]).keys() == {"eer"}


def model(
    folder: Path,
    seed: int,
    classes: tuple[str, ...] = ("marked", "plain"),
    positive: str | None = "marked",
    thresholds: dict[str, float] | None = None,
) -> Path:
    """An untrained network: its scores are as good as any for comparing."""
    import torch

    torch.manual_seed(seed)
    made = build_model("test_byobnet", classes, positive=positive, weights="none", input_size=32)
    head = made.backbone.get_classifier()
    torch.nn.init.normal_(head.weight, std=1.0)
    save_model(made, folder, thresholds)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("against")
    manifest = squares(folder / "data", splits={"train": 4, "val": 20, "test": 40})
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    table["group"] = [f"{row.split} {place // 2}" for place, row in enumerate(table.itertuples())]
    table.to_csv(folder / "data" / "grouped.csv", index=False)
    table.assign(group="").to_csv(folder / "data" / "plain.csv", index=False)
    model(folder / "a", 0, thresholds={"eer": 0.4, "fdr=0.05": 0.6})
    model(folder / "b", 1)
    return folder


def run(data: Path, *arguments: object, manifest: str = "plain.csv") -> Outcome:
    return here("evaluate", data / "a", data / "data" / manifest, *arguments)


def bare(printed: str) -> str:
    """What was printed, without the lines of its tables."""
    return re.sub("[│┃]", " ", printed)


def scores(data: Path, name: str, tmp_path: Path) -> pd.DataFrame:
    out = tmp_path / f"{name}.parquet"
    done = here("evaluate", data / name, data / "data" / "grouped.csv", "--out", out)
    assert done.code == 0, done.err
    return pd.read_parquet(out)


@pytest.mark.parametrize("manifest", ["plain.csv", "grouped.csv"])
def test_the_comparison_is_delongs(data: Path, tmp_path: Path, manifest: str) -> None:
    done = run(data, "--against", data / "b", manifest=manifest)
    assert done.code == 0, done.err
    ours, theirs = (scores(data, name, tmp_path) for name in ("a", "b"))
    grouped = manifest == "grouped.csv"
    for name in ("val", "test"):
        one, other = (frame[frame["split"] == name] for frame in (ours, theirs))
        truth = (one["label"] == "marked").to_numpy()
        found = delong(
            truth,
            one["score_marked"],
            other["score_marked"],
            one["group"].to_numpy(object) if grouped else None,
        )
        rows = bare(done.out).splitlines()
        line = next(row for row in reversed(rows) if row.split()[:1] == [name])
        numbers = [float(text) for text in re.findall(r"[+-]?\d+\.\d+", line)]
        expected = [found.auc_a, found.auc_b, found.difference, found.low, found.high, found.p]
        np.testing.assert_allclose(numbers, expected, atol=6e-4)
    assert ("groups: images of one group" in done.out) == grouped
    assert ("which are treated as independent" in done.out) == (not grouped)
    assert "these two models" in done.out


def test_the_threshold_is_the_models_own(data: Path, tmp_path: Path) -> None:
    done = run(data, "--threshold", "fdr=0.05", "--terms", "pad")
    assert done.code == 0, done.err
    assert "at the fixed threshold 0.6" in done.out
    frame = scores(data, "a", tmp_path)
    test = frame[frame["split"] == "test"]
    truth = (test["label"] == "marked").to_numpy()
    found = threshold_rates(truth, test["score_marked"].to_numpy(), list(test["source"]), 0.6)
    for measure, word in (("bpcer", "BPCER"), ("acer", "ACER")):
        value = next(rate.value for rate in found if rate.measure == measure)
        assert re.search(rf"test +{word} +{value:.3f}", bare(done.out))
    assert "n too small" in done.out  # TDR at FDR 0.1 % of 20 negatives
    assert "nan" not in done.out


def test_more_classes_have_an_auc_each(data: Path, tmp_path: Path) -> None:
    names = ("ash", "oak", "yew")
    manifest = squares(tmp_path / "data", classes=names)
    model(tmp_path / "three", 0, names, None)
    done = here("evaluate", tmp_path / "three", manifest)
    assert done.code == 0, done.err
    assert all(name in done.out for name in names)
    done = here("evaluate", tmp_path / "three", manifest, "--against", tmp_path / "three")
    assert done.code == 2
    assert "no positive class" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "bpcer1%"], "eer, fdr=0.05"),
        (["--threshold", "best"], "is not a rule"),
        (["--threshold", "fdr=1.5"], "is not a rule"),
        (["--against", "nowhere"], "is not a model folder"),
    ],
)
def test_what_cannot_be_had_is_told(data: Path, arguments: list[str], words: str) -> None:
    done = run(data, *arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


NAMES = {"train": "train", "val": "val", "val-unseen": "val", "test": "test", "test-a b": "test"}
NAMES |= dict.fromkeys(["vall", "val_unseen", "Val", "test1", "train-a", "", " val", "holdout"], "")


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_a_split_is_train_or_val_or_test_alone_or_with_a_dash(name: str, kind: str) -> None:
    assert (kind_or_none(name) or "") == kind
    assert kind_of(pd.Series([name], dtype="str")).tolist() == [kind]


def test_a_manifest_is_refused_by_row_and_nearest_name() -> None:
    splits = ["train", "train", "val", "test", "vall", "tests", "val_x"]
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(7)], "label": list("abababa")})
    with pytest.raises(ProblemsError) as caught:
        Manifest.from_frame(frame.assign(split=splits), "/")
    told = [str(problem) for problem in caught.value.problems if "split" in problem.what]
    assert told == [
        "row 4 (from 0): split 'vall' is unknown; did you mean val?",
        "row 5 (from 0): split 'tests' is unknown; did you mean test?",
        "row 6 (from 0): split 'val_x' is unknown; did you mean val-x?",
    ]
