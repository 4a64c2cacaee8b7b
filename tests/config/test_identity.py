"""Which fields are part of a run's id: all that do not say otherwise, whoever adds them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from preceptor.config.identity import IdentityOf, NotIdentity, identity_values, is_identity
from preceptor.config.run import RunConfig, Training
from preceptor.training.prepare import run_id

BASE: dict[str, Any] = {"manifest": "/m.csv", "backbone": "resnet50"}
STORE = {"kind": "store", "path": "/maps", "identity": "t cam"}
# Ids of the version before fields were marked.
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("94da9d7f3b75e7111a68", {}),
    "plain": (
        "108d08dbb8efb1111874",
        {
            "maps": {"kind": "none"}, "alpha": 1.0, "post": {"blur": 0.1}, "guide_classes": ("a",),
            "training": {"distance": "mse", "cam_class": "predicted"},
        },
    ),
    "human": (
        "cf15d99ec04099f57081",
        {
            "rows": "annotated", "alpha": 0.25, "annotated": 20, "annotated_seed": 3,
            "post": {"blur": 0.1}, "human_post": {"dilate": 0.1}, "guide_classes": ("a",),
        },
    ),
    "replaced": (
        "f167255f80f7a63e78fc",
        {"maps": STORE, "post": {"power": 2.0}, "human_post": {"power": 2.0}},
    ),
    "kept": (
        "55027f54351e937e18a7",
        {
            "maps": STORE | {"human": "keep", "trust": "score", "shuffle_seed": 1},
            "post": {"power": 2.0}, "human_post": {"power": 2.0}, "alpha": 0.5, "alpha_start": 0.5,
        },
    ),
    "centre": (
        "5f0556e141461df7b726",
        {"maps": {"kind": "centre"}, "human_post": {"blur": 0.2}, "alpha_start": 0.9},
    ),
    "soft": (
        "bfa943ddaf0d2e7e0911",
        {
            "soft_labels": {"path": "/maps", "identity": "t", "weight": 0.25},
            "maps": {"kind": "none"}, "positive": "fake", "validation_negatives": "val",
        },
    ),
    "recipe": (
        "854e57ec8e4e667f8d5e",
        {
            "training": {
                "recipe": "paper", "device": "cuda", "cache": "none", "threads": 4,
                "augmentation": {"flip": True, "crop_area": 0.5},
            },
            "weights": "hub", "backbone_args": {"output_stride": 8}, "seed": 7,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_ids_of_earlier_versions_are_known(name: str) -> None:
    known, values = KNOWN[name]
    assert run_id(RunConfig.model_validate(BASE | values), "rows", "none") == known


class LaterTraining(Training):
    new: int = 0


class Later(RunConfig):
    new: int = 0
    elsewhere: Annotated[int, NotIdentity()] = 0
    of_maps: Annotated[int, IdentityOf("guidance")] = 0
    training: LaterTraining = LaterTraining()


def test_a_new_field_is_part_of_the_id_unless_it_says_otherwise() -> None:
    def identity(**values: Any) -> str:
        return run_id(Later.model_validate(BASE | values), "rows", "none")

    assert identity() == KNOWN["defaults"][0]
    assert identity(elsewhere=1) == identity()
    plain = {"alpha": 1.0}
    changed = [{}, {"new": 1}, {"training": {"new": 1}}, {"of_maps": 1}]
    assert len({identity(**values) for values in changed}) == 4
    assert len({identity(**values, **plain) for values in changed}) == 3


def marked(model: type[BaseModel]) -> set[str]:
    """The fields that are not part of every id."""
    return {name for name, field in model.model_fields.items() if not is_identity(field, ())}


def test_the_fields_that_are_not_part_of_every_id() -> None:
    """To mark a field is to say that runs may be shared that differ in it: a decision."""
    found = marked(RunConfig) | {f"training.{name}" for name in marked(Training)}
    assert found == {
        "manifest", "weights", "annotated", "annotated_seed", "maps", "guide_classes", "alpha",
        "alpha_start", "post", "human_post", "training.recipe", "training.distance",
        "training.cam_class", "training.device", "training.cache",
    }  # fmt: skip


def test_defaults_are_left_out() -> None:
    config = RunConfig.model_validate(BASE | {"seed": 3, "training": {"momentum": 0.9, "lr": 0.1}})
    assert identity_values(config, config.uses) == {
        "backbone": "resnet50", "seed": 3, "training": {"lr": 0.1},
    }  # fmt: skip
