"""Whole trainings against a plain loop, guidance methods, and the last layer trained again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from preceptor.config.run import MapSource, RunConfig
from preceptor.config.training import GUIDANCE_NAMES, Training, takes_masks
from preceptor.data.loader import TrainingStream, epoch_order, split_batches
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.losses.guidance import METHODS
from preceptor.losses.guided import Targets
from preceptor.metrics.auc import auc
from preceptor.models.build import build_model, load_model
from preceptor.models.guided_model import class_weight
from preceptor.training.last_layer import STRENGTHS, balanced_logistic_regression, mean_features
from preceptor.training.loop import derived_seed, guidance_batch
from preceptor.training.prepare import guided_rows, image_formats, run_id_of
from preceptor.training.run import build_untrained, train
from preceptor.training.validation import POOLS, validation_sets
from preceptor.utils.results import file_digest, read_record, read_scores
from tests.datasets import SHORT, squares
from tests.training.small_runs import small

TRAINING = SHORT | {"epochs": 2, "checkpoint": "last", "cam_class": "decision"}
CASES: dict[str, dict[str, Any]] = {
    "decision map, l2": {},
    "cells, other weights": {"training": {"distance": "cells", "mark_weight": 2, "cell_full": 1}},
    "energy and cells": {"training": {"distance": {"energy": 0.5, "cells": 1.5}}},
    "auto": {"training": {"distance": "cells"}, "alpha": "auto"},
    "top": {"training": {"distance": "cells", "pool": "top", "pool_top": 3}},
    "lse": {"training": {"distance": "l2", "pool": "lse"}},
    "mapper": {
        "training": {"distance": "cells", "head": "sigmoid", "pool": "top"},
        "labels": "marks",
        "rows": "annotated",
        "alpha": 0.0,
    },
}


def config_of(manifest: Path, case: dict[str, Any], **values: Any) -> RunConfig:
    training = TRAINING | case.get("training", {}) | values.pop("training", {})
    return small(manifest, **({"alpha": 0.5} | case | values | {"training": training}))


def distance(name: str, z: Tensor, t: Tensor, settings: Any) -> Tensor:
    """The formula of a distance for one image; 0 where its mask says nothing."""
    flat = bool(t.max() == t.min())
    if name == "l2":
        s = (z - z.min()) / (z.max() - z.min())
        return z.sum() * 0 if flat else (((s - t / t.max()) ** 2).sum() + 1e-30).sqrt()
    if name == "cells":
        w = 1 + settings.mark_weight * t
        return (w * ((1 + z.exp()).log() - t * z)).sum() / w.sum()
    assert name == "energy"
    if flat or z.max() <= 0:
        return z.sum() * 0 + (0 if flat else 1)
    return 1 - (t * z.relu()).sum() / z.relu().sum()


def plain_loop(config: RunConfig) -> dict[str, Tensor]:
    """The same training without the library's loader, loss, pooling or trainer."""
    settings = config.training
    table = pd.read_csv(config.manifest)
    table = table[table["split"] == "train"].fillna({"saliency": ""})
    names = sorted(table["label"].unique())
    labels = np.array([names.index(label) for label in table["label"]])
    folder = config.manifest.parent
    pictures = np.stack([np.asarray(Image.open(folder / path)) for path in table["path"]])
    masks = np.ones((len(table), 4, 4), np.float32)
    for row, path in enumerate(table["saliency"]):
        if path:
            mark = np.asarray(Image.open(folder / path), np.float32) / 255
            area = mark.reshape(4, 8, 4, 8).mean((1, 3))
            if takes_masks(settings.distance):
                area = np.minimum(area / settings.cell_full, 1)
            masks[row] = area
    torch.manual_seed(derived_seed(config.seed, -1))
    model = build_model(
        "test_byobnet",
        names,
        positive="marked",
        input_size=32,
        head=settings.head,
        backbone_args={"output_stride": 8},
    )
    network = model.backbone.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(), lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay
    )
    head = network.get_classifier()
    y1 = names.index("marked")
    weights = settings.distance if isinstance(settings.distance, dict) else {settings.distance: 1.0}
    for epoch in range(settings.epochs):
        order = epoch_order(config.seed, epoch, labels, balanced=False)
        for part in split_batches(len(order), settings.batch_size):
            chosen = order[part]
            x = torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).float() / 255
            x = (x - model.mean) / model.std
            f = network.forward_features(x.contiguous(memory_format=torch.channels_last))
            w, b = head.weight, head.bias
            if settings.head == "sigmoid":
                d = torch.einsum("c,bchw->bhw", w[0], f) + b[0]  # log-odds of the second class
                d = d if y1 == 1 else -d
            else:
                d = torch.einsum("c,bchw->bhw", w[y1] - w[1 - y1], f) + b[y1] - b[1 - y1]
            if settings.pool == "mean":
                z = d.mean((1, 2))
            elif settings.pool == "top":
                count = settings.pool_top if isinstance(settings.pool_top, int) else math.ceil(1.6)
                z = d.flatten(1).sort(1).values[:, -count:].mean(1)
            else:
                z = (4.0 * d).exp().mean((1, 2)).log() / 4.0
            marked = torch.from_numpy(labels[chosen]) == y1
            sign = torch.where(marked, 1.0, -1.0)
            ce = (1 + (-sign * z).exp()).log().mean()
            t = torch.from_numpy(masks[chosen])
            guide = torch.stack(
                [
                    sum(
                        weight * distance(name, sign[k] * d[k], t[k], settings)
                        for name, weight in weights.items()
                    )
                    for k in range(len(chosen))
                ]
            ).mean()
            alpha = (ce / (ce + guide)).item() if config.alpha == "auto" else config.alpha
            optimizer.zero_grad()
            ((1 - alpha) * guide + alpha * ce).backward()
            optimizer.step()
    return network.state_dict()


# Guidance methods.


def weights_of(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "model" / "model.safetensors")
    return found


def test_a_distance_by_name_and_as_a_method_is_the_same(manifest: Path, tmp_path: Path) -> None:
    by_name = train(config_of(manifest, {}, training={"cam_class": "label"}), tmp_path)
    method = {"cam_class": "label", "preset": {"distance": "l2"}}
    result = train(config_of(manifest, {}, training=method), tmp_path)
    assert result.id != by_name.id
    assert (by_name.record.guidance_scale, result.record.guidance_scale) == (None, 1.0)
    assert "guidance_scale" not in read_record(by_name.folder)
    expected = weights_of(by_name.folder)
    for key, value in weights_of(result.folder).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)
    for key in ("loss", "classification", "guidance", "guided", "val_auc"):
        same = pytest.approx(by_name.record.metrics[key], rel=1e-4)
        assert result.record.metrics[key] == same, key


def test_all_roles_of_a_seed_have_one_scale(tmp_path: Path) -> None:
    """Of one map among 48 images, of all maps, of shuffled ones, and of one centered map."""
    path = squares(tmp_path, splits={"train": 48, "val": 4, "test": 4})
    table = pd.read_csv(path)
    table.loc[(table["split"] == "train") & (table.index != 1), "saliency"] = ""
    few = tmp_path / "few.csv"
    table.to_csv(few, index=False)
    short = {"training": {"method": "rank", "length": "steps", "steps": 2, "epochs": 1}}
    shuffled = MapSource(kind="human", shuffle_seed=0)
    configs = [config_of(few, short), config_of(path, short), config_of(path, short, maps=shuffled)]
    configs.append(config_of(few, short, maps=MapSource(kind="centre")))
    scales = {train(one, tmp_path / "runs").record.guidance_scale for one in configs}
    assert len(scales) == 1
    assert (scales.pop() or 0) > 0


def test_the_scale_of_input_gradients_is_that_of_a_network_in_training(tmp_path: Path) -> None:
    """At the start the term is much smaller, so that its λ would be no strength."""
    path = squares(tmp_path, splits={"train": 48, "val": 4, "test": 4})
    settings = {"preset": {"scalar": "logp"}, "method": "gradient", "lr": 0.05}
    of = {"training": settings | {"length": "steps", "steps": 100, "epochs": 1}}
    guided = train(config_of(path, of, alpha=0.999999), tmp_path / "runs").record
    term = guided.metrics["guidance"]  # mean over a training that is guided hardly at all
    assert 0.1 < (guided.guidance_scale or 0) * term / math.log(2) < 10


@pytest.mark.parametrize("method", ["gradient", "head"])
def test_a_method_goes_on_with_its_scale_and_its_layers(
    manifest: Path, tmp_path: Path, method: str
) -> None:
    own = {
        "method": method,
        "optimizer": "adamw",
        "augmentation": {"flip": True, "outside": "mean"},
        "clip": 1.0,
    }
    config = config_of(manifest, {}, training=own)
    undisturbed = train(config, tmp_path / "undisturbed")

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", tell_epoch=stop)
    lines: list[str] = []
    resumed = train(config, tmp_path / "stopped", tell=lines.append)
    assert lines[0] == "resumed after epoch 1 of 2"
    assert resumed.record.guidance_scale == undisturbed.record.guidance_scale
    assert (undisturbed.record.guidance_scale or 0) > 0
    for name in ("model/model.safetensors", "metrics.csv", "scores.parquet"):
        digests = [file_digest(one.folder / name) for one in (resumed, undisturbed)]
        assert digests[0] == digests[1], name
    plain = build_model("test_byobnet", ["marked", "plain"], backbone_args={"output_stride": 8})
    assert weights_of(undisturbed.folder).keys() == plain.backbone.state_dict().keys()
    row = pd.read_csv(undisturbed.folder / "metrics.csv").iloc[-1]
    assert row["guidance"] > 0
    assert row["guided"] == undisturbed.record.guided_images == 12
    assert row[["grad_logits", "grad_map", "map_correlation"]].isna().all()


def test_maps_of_the_input_are_changed_as_the_images(tmp_path: Path) -> None:
    """Images that show their maps: what is enlarged of the map is the image."""
    path = squares(tmp_path)
    table = pd.read_csv(path).fillna({"saliency": ""})
    for image, mark in table[table["saliency"] != ""][["path", "saliency"]].itertuples(index=False):
        Image.open(tmp_path / mark).convert("RGB").save(tmp_path / image)
    changes = {"flip": True, "quarter_turns": True, "crop_area": 0.5}
    config = config_of(path, {}, training={"augmentation": changes})
    workspace = Workspace.open(path, formats=image_formats(config))
    rows = guided_rows(workspace, config, build_untrained(workspace, config))
    settings = config.training.augmentation
    stream = TrainingStream(rows, 24, seed=0, settings=settings, in_input=True)
    (batch,) = stream.steps(0, 1)
    assert batch.map_weight is not None
    assert batch.input_maps is not None
    targets = Targets(batch.labels, batch.maps, batch.map_weight)
    made = guidance_batch(batch.images.float(), targets, batch.input_maps)
    assert made.map_input is not None
    assert made.weight is not None
    for number in np.flatnonzero(made.weight > 0):
        pair = torch.stack([made.map_input[number], made.images[number, 0] / 255]).flatten(1)
        assert torch.corrcoef(pair)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "teach"}, "the output of a Teacher for every batch"),
        ({"method": "rank", "distance": "mse"}, "set distance: l2"),
        ({"method": "evidence", "cam_source": "cyborg"}, "add up to the logits"),
        ({"preset": {"distance": "cells"}, "cam_source": "cyborg"}, "add up to the logits"),
        ({"method": "head", "preset": "abn", "cam_source": "cyborg"}, "add up to the logits"),
        (
            {"method": "head", "preset": {"preset": "abn", "weight": 1}, "cam_source": "cyborg"},
            "add up to the logits",
        ),
        ({"method": "rankk"}, "not one of cyborg, evidence"),
        ({"method": "rank", "preset": {"name": "hint"}}, "use method"),
        ({"method": "rank", "preset": "hints"}, "preset 'hints' is not one of hint, scr"),
        ({"method": "rank", "preset": {"normalised": True}}, "its settings are weight, map"),
        ({"method": "rank", "alpha": "auto"}, "auto balances distances"),
    ],
)
def test_wrong_methods_are_refused_before_a_training(
    manifest: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    alpha = {"alpha": changes.get("alpha", 0.5)}
    own = {key: value for key, value in changes.items() if key not in alpha}
    with pytest.raises((InputError, ValidationError), match=told):
        train(config_of(manifest, alpha, training=own), tmp_path)
    assert not list(tmp_path.iterdir())


OWN = """
from pydantic.dataclasses import dataclass
from preceptor.losses.guidance import CHECKED, Guidance

@dataclass(config=CHECKED, kw_only=True)
class Area(Guidance):
    name = "area"
    factor: float = 1.0

    def terms(self, batch, forward):
        own = forward(map="label").map.sigmoid().mean((1, 2))
        return {"area": batch.only((own - self.factor * batch.mask.mean((1, 2))).abs())}
"""


def test_a_method_of_ones_own_is_trained_and_its_source_is_part_of_the_id(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "area_of_maps.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = config_of(manifest, {}, training={"method": "area_of_maps:Area", "cam_class": "label"})
    done = train(config, tmp_path / "runs")
    assert (pd.read_csv(done.folder / "metrics.csv")["guidance"] > 0).all()
    workspace = Workspace.open(manifest)
    assert run_id_of(workspace, config) == done.id
    (tmp_path / "area_of_maps.py").write_text(OWN.replace("abs()", "square()"))
    assert run_id_of(workspace, config) != done.id


def test_names_in_configs_are_those_of_the_methods() -> None:
    assert set(GUIDANCE_NAMES.own) == set(METHODS)
    mapless = {name for name, kind in METHODS.items() if not kind.needs & {"map", "map_input"}}
    taken = {name for name in METHODS if not Training.model_construct(method=name).takes_maps}
    assert mapless - {"teach"} == taken


@pytest.mark.parametrize("name", CASES)
def test_a_training_is_the_plain_loop(name: str, manifest: Path, tmp_path: Path) -> None:
    config = config_of(manifest, CASES[name])
    folder = train(config, tmp_path / "runs").folder
    found = load_file(folder / "model" / "model.safetensors")
    expected = plain_loop(config)
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=2e-6, rtol=2e-5, msg=key)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert np.isfinite(metrics[["loss", "guidance", "grad_map", "map_correlation"]]).all(axis=None)


def test_the_readout_is_the_best_on_validation_and_changes_no_weight(
    manifest: Path, tmp_path: Path
) -> None:
    plain = train(config_of(manifest, {}), tmp_path / "runs").folder
    read = train(config_of(manifest, {}, training={"readout": "auto"}), tmp_path / "runs").folder
    digests = [file_digest(run / "model" / "model.safetensors") for run in (plain, read)]
    assert digests[0] == digests[1]
    aucs = []
    for run in (plain, read):
        scores = pd.read_parquet(run / "scores.parquet")
        aucs.append(auc(scores["label"] == "marked", scores["score_marked"]))
        assert load_model(run / "model").spec.pool in POOLS
        # Measured with the pooling of the saved model.
        metrics = read_record(run)["metrics"]
        assert metrics["val_auc"] == pytest.approx(aucs[-1], abs=1e-9)
        right = (scores["score_marked"] > 0.5) == (scores["label"] == "marked")
        assert metrics["val_accuracy"] == pytest.approx(right.mean(), abs=1e-9)
        assert set(metrics) == set(pd.read_csv(run / "metrics.csv").columns)
    assert load_model(read / "model").spec.pool != load_model(plain / "model").spec.pool
    assert aucs[1] >= aucs[0]


SPLITS = {"train": 16, "val": 8, "val-clean": 12, "test": 4}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_scikit_learn_finds_the_same_weights(
    classes: int, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, 90) * (generator.random(90) < 0.8)
    features = generator.normal(labels[:, None] * [1.0, 0.2, 0.0, 0.5], [1.0, 3.0, 0.1, 1.0])
    features = np.c_[features, np.ones(90)]  # a channel that is constant
    monkeypatch.setattr("preceptor.training.last_layer.STRENGTHS", (strength,))
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
    return small(manifest, **({"maps": {"kind": "none"}, "training": SHORT} | values))


def test_maps_of_weight_0_are_no_targets_of_validation(manifest: Path) -> None:
    table = pd.read_csv(manifest)
    rows = table["saliency"].notna() & (table["split"] == "val")
    for of_use in (rows.index[rows][:1], []):
        table["map_weight"] = 0
        table.loc[of_use, "map_weight"] = 1
        table.to_csv(manifest, index=False)
        workspace, run = Workspace.open(manifest), config(manifest)
        targets = validation_sets(workspace, build_untrained(workspace, run))["val"].targets
        assert (0 if targets is None else (targets.weight > 0).sum()) == len(of_use)


def test_quarter_turns_need_a_square_grid(manifest: Path) -> None:
    workspace, turned = Workspace.open(manifest), {"augmentation": {"quarter_turns": True}}
    run = config(manifest, maps={"kind": "human"}, training=SHORT | turned)
    model = build_untrained(workspace, run)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(type(model), "guidable_grid", lambda self: (4, 2))
        with pytest.raises(InputError, match="quarter_turns need maps with equal sides"):
            guided_rows(workspace, run, model)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_only_the_last_layer_changes(tmp_path: Path, head: str) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    values = {"training": SHORT | {"head": head, "readout": "auto"}}
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
    found = class_weight(models[0].head).detach().double().numpy()
    np.testing.assert_allclose(found[1] - found[0], weight[1] - weight[0], atol=1e-5)
    assert run.record.metrics["loss"] == base.record.metrics["loss"]
    scores = read_scores(run.folder)
    assert set(scores["split"]) == {"val", "val-clean"}
    assert not scores.equals(read_scores(base.folder))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"last_layer": "val-other"}, "last_layer: 'val-other' is not one of the validation sets"),
        ({"last_layer": "val", "training": SHORT | {"pool": "top"}}, "pool: mean"),
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
