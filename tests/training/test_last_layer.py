"""Deep feature reweighting: only the last layer changes, to a logistic regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from preceptor.config.run import RunConfig
from preceptor.config.settings import NetworkFactory
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.models.build import build_model
from preceptor.models.model_folder import load_model
from preceptor.training.run import train
from preceptor.training.validation import (
    STRENGTHS,
    balanced_logistic_regression,
    check_last_layer,
    mean_features,
    validation_sets,
)
from preceptor.utils.results import read_scores
from tests.datasets import squares

SPLITS = {"train": 16, "val": 8, "val-clean": 12, "test": 4}
TIED_HEAD = NetworkFactory(factory="tests.networks:tied_head")
TRAINING: dict[str, Any] = {"input_size": 32, "epochs": 1, "batch_size": 8, "lr": 0.01}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_scikit_learn_finds_the_same_weights(
    classes: int, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, 90) * (generator.random(90) < 0.8)
    features = generator.normal(labels[:, None] * [1.0, 0.2, 0.0, 0.5], [1.0, 3.0, 0.1, 1.0])
    features = np.c_[features, np.ones(90)]  # a channel that is constant
    monkeypatch.setattr("preceptor.training.validation.STRENGTHS", (strength,))
    weight, bias = balanced_logistic_regression(features, labels, classes)
    spread = np.where(features.std(0) > 0, features.std(0), 1)
    standard = (features - features.mean(0)) / spread
    # Its loss is a sum with weights n ÷ (C · n_c), ours has total weight 1.
    oracle = LogisticRegression(
        C=1 / (strength * 90), class_weight="balanced", max_iter=10_000, tol=1e-10
    ).fit(standard, labels)
    logits = features @ weight.T + bias
    shown = np.exp(logits - logits.max(1, keepdims=True))
    shown /= shown.sum(1, keepdims=True)
    if classes == 2:  # it has one weight vector there, with half of our penalty
        oracle = LogisticRegression(
            C=2 / (strength * 90), class_weight="balanced", max_iter=10_000, tol=1e-10
        ).fit(standard, labels)
    np.testing.assert_allclose(shown, oracle.predict_proba(standard), atol=2e-4)


def config(manifest: Path, **values: Any) -> RunConfig:
    base = {
        "manifest": manifest,
        "backbone": "test_byobnet",
        "backbone_args": {"output_stride": 8},
        "positive": "marked",
        "maps": {"kind": "none"},
        "training": TRAINING,
    }
    return RunConfig.model_validate(base | values)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_only_the_last_layer_changes(tmp_path: Path, head: str) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    values = {"training": TRAINING | {"head": head, "readout": "auto"}}
    run = train(config(manifest, last_layer="val-clean", **values), tmp_path / "runs")
    base = train(config(manifest, **values), tmp_path / "runs")
    assert not base.trained  # the first call trained it
    models = [load_model(one.folder / "model") for one in (run, base)]
    ours, theirs = (model.backbone.state_dict() for model in models)
    changed = {key for key in ours if not torch.equal(ours[key], theirs[key])}
    assert {key.rpartition(".")[0] for key in changed} == {"head.fc"}
    workspace = Workspace.open(manifest)
    rows = validation_sets(workspace, models[1])["val-clean"]
    weight, _ = balanced_logistic_regression(
        mean_features(models[1], rows), np.asarray(rows.labels), 2
    )
    found = models[0].class_weight.detach().double().numpy()
    np.testing.assert_allclose(found[1] - found[0], weight[1] - weight[0], atol=1e-5)
    assert run.record.metrics["loss"] == base.record.metrics["loss"]
    scores = read_scores(run.folder)
    assert set(scores["split"]) == {"val", "val-clean"}
    assert not scores.equals(read_scores(base.folder))


def test_a_classifier_whose_weight_another_layer_has_too_is_refused(tmp_path: Path) -> None:
    """A new weight would change the features that it was computed from."""
    manifest = squares(tmp_path / "data", splits=SPLITS)
    values = {"backbone": "mine", "backbone_args": {}, "network": TIED_HEAD}
    with pytest.raises(InputError, match="mine: last_layer changes the classifier alone, and the"):
        train(config(manifest, last_layer="val-clean", **values), tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/run.json"))
    network = NetworkFactory(factory="tests.networks:tied")
    check_last_layer(build_model("mine", ("a", "b"), input_size=32, network=network))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"last_layer": "val-other"}, "last_layer: 'val-other' is not one of the validation sets"),
        ({"last_layer": "val", "training": TRAINING | {"pool": "top"}}, "pool: mean"),
        (
            {"last_layer": "val", "backbone": "test_vit", "backbone_args": {}},
            "exact class activation map",
        ),
    ],
)
def test_what_has_no_last_layer_to_train_is_refused(
    tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    with pytest.raises(InputError, match=told):
        train(config(manifest, **values), tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/run.json"))
