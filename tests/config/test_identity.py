"""Which fields are part of a run's id: all that do not say otherwise, whoever adds them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from preceptor.config.run import RunConfig
from preceptor.config.settings import IdentityOf, NotIdentity, is_identity
from preceptor.config.training import Augmentation, Training
from preceptor.training.prepare import run_id

BASE: dict[str, Any] = {"manifest": "/m.csv", "backbone": "resnet50"}
STORE = {"kind": "store", "path": "/maps", "identity": "t cam"}
# Ids of this version: a change of a field or of NUMERICS changes them, nothing else may.
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("532d123fee3d033b3ed8", {}),
    "plain": (
        "773c1e9c9e080d86b0a6",
        {
            "maps": {"kind": "none"},
            "alpha": 1.0,
            "guide_classes": ("a",),
            "training": {"distance": "mse", "cam_class": "predicted"},
        },
    ),
    "human": (
        "e845708f92ff14812cce",
        {
            "rows": "annotated",
            "alpha": 0.25,
            "annotated": 20,
            "annotated_seed": 3,
            "guide_classes": ("a",),
        },
    ),
    "store": ("f7fd76c4cd85ded78f7e", {"maps": STORE}),
    "kept": (
        "b201edd791ad22c93b9b",
        {"maps": STORE | {"human": "keep", "shuffle_seed": 1}, "alpha": 0.5},
    ),
    "centre": ("e162aabeec32230521dd", {"maps": {"kind": "centre"}}),
    "recipe": (
        "0fcd7c0efa818bbaf867",
        {
            "training": {
                "recipe": "paper",
                "device": "cuda",
                "cache": "none",
                "threads": 4,
                "augmentation": {"flip": True, "crop_area": 0.5},
            },
            "weights": "hub",
            "backbone_args": {"output_stride": 8},
            "seed": 7,
        },
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_ids(name: str) -> None:
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
    run = "manifest weights weights_identity annotated annotated_seed maps guide_classes alpha"
    training = "recipe method preset distance cam_class cell_full mark_weight"
    assert marked(RunConfig) == {*run.split()}
    assert marked(Training) == {*training.split(), "device", "cache"}
    assert marked(Augmentation) == {"outside", "outside_rate"}
