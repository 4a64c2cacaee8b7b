"""Run configs of a study: what a training gets of the study's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.config.training import Speed, Training
from preceptor.study.config import StudyConfig
from preceptor.study.run_configs import (
    annotated_seed_of,
    plain_run,
    run_config,
    training_of,
    weights_of,
)

BASE: dict[str, Any] = {
    "manifest": "data/{seed}/manifest.csv",
    "positive": "fake",
    "teachers": ["a"],
    "students": ["a", "b"],
    "seeds": [3, 5],
}


def study(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate(BASE | changes)


def test_a_run_has_the_manifest_and_the_annotated_images_of_its_seed() -> None:
    config = study(annotated=10, annotated_seed=7, annotated_per_seed=True)
    run = run_config(config, "b", 5, seed=11)
    assert run.manifest == Path("data/5/manifest.csv")
    assert (run.backbone, run.positive, run.annotated, run.seed) == ("b", "fake", 10, 11)
    assert run.annotated_seed == annotated_seed_of(config, 5) == 12
    assert annotated_seed_of(study(annotated=10, annotated_seed=7), 5) == 7


def test_weights_are_those_of_all_or_of_the_backbone() -> None:
    assert weights_of(study(weights="hub"), "b") == "hub"
    assert weights_of(study(weights={"a": "hub", "b": "none"}), "b") == "none"


def test_the_choice_of_the_probe_replaces_auto_and_a_way_changes_the_loss() -> None:
    training = {"precision": "auto", "distance": "l2"}
    config = study(
        training=training,
        speed={"a": Speed(precision="bf16-mixed").model_dump()},
        guidances={"m": {"distance": "mse"}},
    )
    assert training_of(config, "a").precision == "bf16-mixed"
    assert training_of(config, "b").precision == "auto"
    assert training_of(config, "a", "m").distance == "mse"
    plain = plain_run(config, "a")
    assert plain.training == Training.model_validate(training).without_auto()
    assert plain.positive is None
    assert plain.seed == 3
