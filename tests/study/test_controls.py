"""Controls guide the classes that the Student's maps guide, and shuffle maps over groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.config.run import RunConfig
from preceptor.maps.targets import build_map_targets
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.protocol import Protocol, Teacher, teachers_of
from preceptor.study.workspaces import Workspaces
from tests.datasets import SQUARES_STUDY, squares


def protocol(manifest: Path, **changes: Any) -> Protocol:
    values = SQUARES_STUDY | {"manifest": manifest, "training": {"input_size": 32}, "seeds": 1}
    study = parse_config(values | changes, StudyConfig)
    store = manifest.parent / "store"
    return Protocol(study, Workspaces.of_study(study, store), store)


def teacher(one: Protocol, kind: str) -> Teacher:
    return next(found for found in teachers_of(one.study) if found.kind == kind)


def run_of(one: Protocol, role: Any, by: Teacher) -> RunConfig:
    if role == "student":
        step = one.student(by, "test_byobnet", Setting(0.5), 0)[-1]
    else:
        step = one.control(role, by, "test_byobnet", Setting(0.5), 0)[-1]
    assert step.config is not None
    return step.config


def guided(one: Protocol, config: RunConfig) -> set[str]:
    """Classes of the training images that a run without a map store guides."""
    workspace = one.workspaces.of(0)
    rows = workspace.training_rows(config)
    images = workspace.images(config.training.image_format(32))
    made = build_map_targets(
        config, workspace.manifest, images, rows, workspace.human_maps_from(config)
    )
    assert made is not None
    return set(workspace.manifest.table["label"].iloc[rows[made.weight > 0]])


@pytest.mark.parametrize("role", ["centre", "pca"])
def test_controls_of_a_mapper_guide_the_class_with_marks(tmp_path: Path, role: str) -> None:
    one = protocol(squares(tmp_path / "data"), mapper=True)
    classifier, mapper = (teacher(one, kind) for kind in ("human", "mapper"))
    assert guided(one, run_of(one, role, classifier)) == {"plain", "marked"}
    assert guided(one, run_of(one, role, mapper)) == {"marked"}
    assert run_of(one, "student", mapper).maps.marks


def test_masks_guide_all_classes_with_the_maps_of_a_mapper(tmp_path: Path) -> None:
    training = {"input_size": 32, "distance": "cells", "cam_class": "decision"}
    one = protocol(squares(tmp_path / "data"), mapper=True, training=training)
    assert guided(one, run_of(one, "centre", teacher(one, "mapper"))) == {"plain", "marked"}


def test_controls_of_given_maps_guide_the_classes_that_have_some(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    one = protocol(manifest, maps={"some": manifest.parent / "maps"})
    given, human = (teacher(one, kind) for kind in ("given", "human"))
    assert guided(one, run_of(one, "student", given)) == {"marked"}
    assert guided(one, run_of(one, "centre", given)) == {"marked"}
    assert run_of(one, "centre", human).guide_classes is None


@pytest.mark.parametrize("role", ["shuffled", "shuffled_human"])
def test_maps_are_shuffled_over_the_groups_of_a_manifest(tmp_path: Path, role: str) -> None:
    manifest = squares(tmp_path / "data")
    alone = protocol(manifest)
    assert not run_of(alone, role, teacher(alone, "human")).maps.shuffle_groups
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    train = table["split"] == "train"
    table.loc[train, "group"] = [f"object {number // 4}" for number in range(train.sum())]
    table.to_csv(manifest, index=False)
    several = protocol(manifest)
    assert run_of(several, role, teacher(several, "human")).maps.shuffle_groups
