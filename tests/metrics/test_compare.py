"""`preceptor evaluate`: figures, error rates at the model's own threshold, one against another."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preceptor.metrics.operating_points import threshold_rates
from preceptor.metrics.paired_tests import delong
from preceptor.models.build import build_model
from preceptor.models.model_folder import save_model
from tests.commands import Outcome, here
from tests.datasets import squares


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
        (["--threshold", "fdr=0.01"], "eer, fdr=0.05"),
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
