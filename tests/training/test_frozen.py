"""A frozen lower part: where networks are cut, cached features, kills, and what stays as it is."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from preceptor.config.files import dump_config, load_config
from preceptor.config.run import RunConfig
from preceptor.data.cache import Features
from preceptor.data.store import StoreWriter
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.predict import predict
from preceptor.metrics.split_names import SWAPPED
from preceptor.models.build import build_model, load_model
from preceptor.models.frozen import cut, freeze
from preceptor.models.networks import separate
from preceptor.study.checks import cache_bytes
from preceptor.study.config import StudyConfig
from preceptor.training.prepare import (
    guided_rows,
    pixels_needed,
    run_id_of,
    step_seconds,
    trained_part,
)
from preceptor.training.run import build_untrained, train
from preceptor.training.validation import validation_sets
from tests import forked
from tests.datasets import SQUARES_RUN, squares
from tests.training.small_runs import small

WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights" / "mobilenetv2_100.safetensors"
SETTINGS = {"input_size": 32, "batch_size": 8, "epochs": 2, "schedule": "constant"}
SETTINGS |= {"lr": 0.01, "frozen": "stages.1"}
BELOW = "stages.1.0.conv2_kxk.bn.running_var"
ABOVE = "stages.3.0.conv3_1x1.bn.running_var"
FLIPS: dict[str, Any] = {"augmentation": {"flip": True}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights of a small network, with running statistics of their own."""
    torch.manual_seed(5)
    network = build_model("test_byobnet", ["a", "b"], input_size=32).backbone
    for name, value in network.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    file = tmp_path_factory.mktemp("weights") / "test_byobnet.safetensors"
    save_file(separate(network.state_dict()), file)
    return str(file)


@pytest.fixture
def config(manifest: Path, weights: str) -> Any:
    """Function that makes the config of a run with a frozen part."""

    def make(training: dict[str, Any] | None = None, **values: Any) -> RunConfig:
        own: dict[str, Any] = {
            "weights": weights,
            "manifest": manifest,
            "training": SETTINGS | (training or {}),
        }
        return RunConfig.model_validate(SQUARES_RUN | own | values)

    return make


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("backbone", "frozen", "found"),
    [
        ("mobilenetv2_100", "blocks.4", "blocks.4"),
        ("mobilenetv2_100", 0.75, "blocks.4"),
        ("tf_efficientnet_lite0", 0.75, "blocks.4"),
        ("resnet18", "layer3.0", "layer3.0"),
        ("resnet18", 0.75, "layer3"),
        ("densenet121", 0.5, "features.transition2"),
        ("densenet121", "features.denseblock3", "features.denseblock3"),
        ("test_byobnet", 0.5, "stages.1"),
    ],
)
def test_what_follows_a_cut_is_the_whole_network(
    backbone: str, frozen: float | str, found: str
) -> None:
    model = build_model(backbone, ["a", "b", "c"], input_size=64).eval()
    parts = cut(model, frozen)
    assert parts.layer.name == found
    assert not isinstance(frozen, float) or parts.layer.share <= frozen
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    labels = torch.tensor([2, 0, 1])
    with torch.no_grad():
        whole = model(model.preprocess(images), labels)
        features = parts.features(images)
        assert features.shape[1:] == parts.upper.takes
        upper = parts.upper.eval()(parts.upper.preprocess(features), labels)
    for one, other in zip(upper, whole, strict=True):
        torch.testing.assert_close(one, other)
    assert parts.upper.grid() == model.grid()
    own = {key for key, _ in parts.upper.named_parameters()}
    below = tuple(f"backbone.{name}." for name in parts.layer.lower)
    assert own == {key for key, _ in model.named_parameters() if not key.startswith(below)}


def test_a_frozen_model_keeps_its_statistics_in_training_mode() -> None:
    model = build_model("resnet18", ["a", "b"], input_size=64)
    freeze(model, "layer3")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()(torch.randn(4, 3, 64, 64)).logits.sum().backward()
    changed = {key for key, one in model.state_dict().items() if not torch.equal(one, before[key])}
    assert changed
    assert all(key.startswith("backbone.layer4") for key in changed)
    graded = {key for key, one in model.named_parameters() if one.grad is not None}
    assert {key.split(".")[1] for key in graded} == {"layer4", "fc"}


def test_where_a_network_cannot_be_cut() -> None:
    model = build_model("resnet18", ["a", "b"], input_size=64)
    with pytest.raises(InputError, match=r"no such layer before its head\); .* of .*layer2"):
        cut(model, "blocks.4")
    with pytest.raises(InputError, match=r"frozen is layer3\.0\.conv1, and the network cannot"):
        cut(model, "layer3.0.conv1")
    with pytest.raises(InputError, match=r"frozen is layer1\.1\.bn2.*not a function of its output"):
        cut(model, "layer1.1.bn2")
    with pytest.raises(InputError, match=r"frozen is 0\.001, and .* name another layer"):
        cut(model, 0.001)
    vit = build_model("test_vit", ["a", "b"], input_size=64)
    with pytest.raises(InputError, match="test_vit: frozen needs an exact class activation map"):
        cut(vit, 0.5)


def test_random_weights_are_not_frozen(config: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights is none: random weights would be kept"):
        train(config(weights="none"), tmp_path)


@pytest.mark.parametrize(
    ("training", "values"),
    [
        (FLIPS, {"alpha": 0.5}),
        ({"precision": "32-true", "distance": "cells", "cam_class": "decision"}, {"alpha": "auto"}),
        (FLIPS | {"method": "rank", "channels_last": False}, {"alpha": 0.5}),
        (FLIPS | {"method": "head", "readout": "auto"}, {"alpha": 0.5}),
        (
            FLIPS
            | {"distance": "cells", "cam_class": "decision", "head": "sigmoid", "pool": "top"},
            {"labels": "marks", "rows": "annotated", "alpha": 0.0},
        ),
        ({"augmentation": {"flip": True, "outside": "mean"}}, {"maps": {"kind": "none"}}),
    ],
)
def test_cached_features_change_nothing(
    config: Any, tmp_path: Path, training: dict[str, Any], values: dict[str, Any]
) -> None:
    """Both trainings draw the same random numbers, and are equal within half precision."""
    told: dict[str, list[str]] = {}
    tables, states = [], []
    for cache in ("memmap", "none"):
        told[cache] = []
        run = config(training | {"cache": cache}, **values)
        done = train(run, tmp_path / cache, tell=told[cache].append, tell_epoch=lambda line: None)
        tables.append(pd.read_csv(done.folder / "metrics.csv"))
        states.append(weights_of(done.folder))
    assert run_id_of(Workspace.open(run.manifest), run) == done.id
    assert "features up to stages.1 are computed for every batch" in told["none"][-1]
    assert "since cache is none" in told["none"][-1]
    assert not any("every batch" in one for one in told["memmap"])
    ranks = [name for name in tables[0] if name.endswith(("_auc", "_accuracy"))]
    pd.testing.assert_frame_equal(*(one.drop(columns=ranks) for one in tables), rtol=0.01)
    initial = load_file(run.weights)
    for key, value in states[0].items():
        if key.startswith(("stages.2", "stages.3", "final_conv", "head")):
            torch.testing.assert_close(value, states[1][key], rtol=0.01, atol=1e-3)
        else:
            assert torch.equal(value, states[1][key])
            assert torch.equal(value, initial[key])
    assert not torch.equal(states[0][ABOVE], initial[ABOVE])


def test_swapped_images_have_features_of_their_own(config: Any, tmp_path: Path) -> None:
    """They are no rows of the manifest, and no files of the cache."""
    manifest = squares(tmp_path / "marked", splits={"train": 24, "val": 24, "test": 12})
    run = config(FLIPS, manifest=manifest)
    workspace = Workspace.open(manifest, tmp_path / "cache")
    model = build_untrained(workspace, run)
    rows, sets = guided_rows(workspace, run, model), validation_sets(workspace, model)
    upper, _, scored = trained_part(run, workspace, model, rows, sets, lambda line: None)
    assert set(scored) == {"val", SWAPPED}
    for name, own in scored.items():
        assert own.features is not None
        whole, part = (
            predict(one, of).probabilities for one, of in ((model, sets[name]), (upper, own))
        )
        np.testing.assert_allclose(part, whole, atol=2e-3)
    filled = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("features-*.pixels"))
    networks = {"teachers": [run.backbone], "students": [run.backbone], "weights": run.weights}
    with_it, without = (
        StudyConfig.model_validate({"manifest": manifest, "training": how} | networks)
        for how in (SETTINGS | FLIPS, SETTINGS | FLIPS | {"frozen": None})
    )
    assert cache_bytes(with_it, [workspace]) - cache_bytes(without, [workspace]) == filled > 0
    again = trained_part(run, workspace, model, rows, sets, lambda line: None)[2]
    assert again[SWAPPED].features is scored[SWAPPED].features, "computed once"


def test_what_needs_pixels(config: Any) -> None:
    assert pixels_needed(config(FLIPS)) == ""
    assert pixels_needed(config({"method": "head"}, alpha=0.5)) == ""
    assert "augmentation.color" in pixels_needed(config({"augmentation": {"color": 0.1}}))
    turned = config({"augmentation": {"quarter_turns": True}})
    assert pixels_needed(turned) == "augmentation.quarter_turns changes images"
    other = {"augmentation": {"outside": "other"}}
    assert "augmentation.outside" in pixels_needed(config(other, alpha=1.0))
    assert pixels_needed(config(other, maps={"kind": "none"})) == ""
    for method in ("gradient", "outside", "faithful", "masktune"):
        assert method in pixels_needed(config({"method": method}, alpha=0.5))
        assert pixels_needed(config({"method": method}, alpha=1.0)) == ""


@pytest.mark.parametrize("method", ["gradient", "faithful"])
def test_a_method_that_changes_images_is_trained_as_well(
    config: Any, tmp_path: Path, method: str
) -> None:
    lines: list[str] = []
    run = config({"method": method, "epochs": 1})
    folder = train(run, tmp_path, tell=lines.append).folder
    assert any(f"{method} changes images or differentiates by them" in one for one in lines)
    state, initial = weights_of(folder), load_file(run.weights)
    assert torch.equal(state[BELOW], initial[BELOW])
    assert not torch.equal(state[ABOVE], initial[ABOVE])


def test_the_frozen_part_is_part_of_the_id(config: Any) -> None:
    workspace = Workspace.open(config().manifest)
    own = [None, "stages.1", "stages.0", 0.6]
    assert len({run_id_of(workspace, config({"frozen": one})) for one in own}) == 4


def test_the_last_layer_is_trained_again_and_steps_are_timed(
    config: Any, manifest: Path, tmp_path: Path
) -> None:
    run = config(FLIPS | {"epochs": 1})
    again = train(run.model_copy(update={"last_layer": "val"}), tmp_path).folder
    one, other = weights_of(again), weights_of(train(run, tmp_path).folder)
    assert {key for key in one if not torch.equal(one[key], other[key])} == {
        "head.fc.weight",
        "head.fc.bias",
    }
    assert 0 < step_seconds(run, ["plain", "marked"]) < 10
    with torch.no_grad():
        load_model(again / "model")(torch.zeros(1, 3, 32, 32))


def filled(run: RunConfig, cache: Path, told: list[str]) -> Features:
    workspace = Workspace.open(run.manifest, cache)
    model = build_untrained(workspace, run)
    rows = guided_rows(workspace, run, model)
    features = trained_part(run, workspace, model, rows, {}, told.append)[1].features
    assert features is not None
    return features


def killed() -> None:
    """Fill the cache of features, and die in the middle of the second batch."""
    put, count = StoreWriter.put, 0

    def last(*arguments: Any) -> None:
        nonlocal count
        count += 1
        put(*arguments)
        if count == 40 and "features" in arguments[0].store.name:
            os.kill(os.getpid(), signal.SIGKILL)

    own = StoreWriter
    config, cache = sys.argv[1:]
    run = load_config(Path(config), RunConfig)
    Workspace.open(run.manifest, Path(cache)).images(run.training.image_format(32))
    own.put = last  # type: ignore[method-assign]
    filled(run, Path(cache), [])


def test_a_killed_cache_goes_on_and_is_the_same(tmp_path: Path, weights: str, config: Any) -> None:
    many = squares(tmp_path / "data", splits={"train": 90, "val": 4, "test": 2})
    run = config(FLIPS, manifest=many)
    torch.set_num_threads(1)
    file = tmp_path / "run.yaml"
    file.write_text(dump_config(run))
    done = forked.run(killed, [file, tmp_path / "killed"])
    assert done.returncode == -signal.SIGKILL, done.stderr
    told: list[list[str]] = [[], [], []]
    caches = [tmp_path / name for name in ("killed", "whole", "killed")]
    found = [filled(run, cache, lines) for cache, lines in zip(caches, told, strict=True)]
    assert "features of 58 images up to stages.1" in told[0][0]
    assert "features of 90 mirror images" in told[0][1]
    assert "features of 90 images" in told[1][0]
    assert told[2] == []
    for name in ("plain", "mirrored"):
        one, other, _ = (getattr(features, name) for features in found)
        np.testing.assert_array_equal(one, other)
        assert one.shape == (90, 4, 4, 64)
    rows = np.array([3, 1, 4])
    flips = np.array([True, False, True])
    mixed = found[0].of(rows, flips)
    np.testing.assert_array_equal(mixed[1], found[0].of(rows, None)[1])
    near = found[0].of(rows, None)[:, :, ::-1]  # nearly equivariant, at a stride of its own
    assert not np.array_equal(mixed[0], near[0])


def test_a_resumed_run_takes_cached_features_or_not(config: Any, tmp_path: Path) -> None:
    """A checkpoint has the trained part alone, whichever way its features were computed."""

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    run = config({"epochs": 3} | FLIPS)
    undisturbed = weights_of(train(run, tmp_path / "undisturbed").folder)
    for first, then in (("memmap", "memmap"), ("memmap", "none"), ("none", "memmap")):
        store = tmp_path / f"{first}-{then}"
        with pytest.raises(KeyboardInterrupt):
            train(config({"epochs": 3, "cache": first} | FLIPS), store, tell_epoch=stop)
        lines: list[str] = []
        one = config({"epochs": 3, "cache": then} | FLIPS)
        state = weights_of(train(one, store, tell=lines.append).folder)
        assert any("resumed after epoch 1 of 3" in line for line in lines)
        for key, value in state.items():
            if first == then:
                assert torch.equal(value, undisturbed[key])
            else:
                torch.testing.assert_close(value, undisturbed[key], rtol=0.01, atol=1e-3)


def test_features_that_are_too_large(config: Any, tmp_path: Path) -> None:
    state = load_file(config().weights)
    key = BELOW.replace("running_var", "weight")
    state[key] = state[key] + 1e6
    save_file(state, tmp_path / "large.safetensors")
    with pytest.raises(InputError, match=r"features of stages\.1 are too large for half precision"):
        train(config(weights=str(tmp_path / "large.safetensors")), tmp_path / "runs")


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} is not there")
def test_pretrained_weights(manifest: Path, tmp_path: Path) -> None:
    training = SETTINGS | {"frozen": 0.75, "epochs": 1, "input_size": 96} | FLIPS
    own = {"backbone": "mobilenetv2_100", "backbone_args": {}, "weights": str(WEIGHTS)}
    done = train(small(manifest, training=training, **own), tmp_path)
    state, initial = weights_of(done.folder), load_file(WEIGHTS)
    key = "blocks.4.2.bn3.running_mean"
    assert torch.equal(state[key], initial[key])
