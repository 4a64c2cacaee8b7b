"""The draw of annotated images."""

import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.data.manifest import Manifest
from preceptor.data.splits import draw_annotated
from preceptor.errors import InputError
from tests.data.sound_manifest import sound, write


def drawn_from(counts: dict[str, int], seed: int = 0) -> Manifest:
    rows = [
        {"path": f"/{label}{i}.png", "name": f"{label}{i}.png", "label": label, "split": split}
        for label, count in counts.items()
        for i, split in enumerate(["train"] * count + ["test"] * 3)
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)
    return Manifest(table.assign(annotated=True), Path("/"))


def per_class(manifest: Manifest, mask: np.ndarray) -> dict[str, int]:
    return manifest.table[mask]["label"].value_counts().to_dict()


def test_all_annotated_training_images_without_an_amount() -> None:
    manifest = drawn_from({"fake": 5, "real": 7})
    assert (draw_annotated(manifest, None, 0) == manifest.train_mask).all()


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (0.25, {"defect": 43, "normal": 129}),
        (1.0, {"defect": 173, "normal": 515}),
        (0.001, {"defect": 1, "normal": 1}),
        (172, {"defect": 43, "normal": 129}),
        (688, {"defect": 173, "normal": 515}),
        (2, {"defect": 1, "normal": 1}),
        (3, {"defect": 1, "normal": 2}),
    ],
)
def test_every_class_at_the_same_share(amount: float, expected: dict[str, int]) -> None:
    manifest = drawn_from({"defect": 173, "normal": 515})
    mask = draw_annotated(manifest, amount, 0)
    assert per_class(manifest, mask) == expected
    assert not (mask & ~manifest.train_mask).any()


def names(manifest: Manifest, amount: float, seed: int) -> set[str]:
    return set(manifest.table["name"][draw_annotated(manifest, amount, seed)])


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    counts = {"fake": 30, "real": 50}
    one, other = drawn_from(counts, seed=1), drawn_from(counts, seed=2)
    assert names(one, 20, 5) == names(other, 20, 5)
    assert names(one, 20, 5) != names(one, 20, 6)
    assert names(one, 20, 5) == names(one.select(one.train_mask), 20, 5)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), counts=st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_draws_are_exact_and_nested(data: st.DataObject, counts: list[int]) -> None:
    manifest = drawn_from(dict(zip(string.ascii_lowercase, counts, strict=False)))
    amount = data.draw(st.integers(len(counts), sum(counts)))
    mask = draw_annotated(manifest, amount, 3)
    assert mask.sum() == amount
    taken = per_class(manifest, mask)
    for label, count in zip(string.ascii_lowercase, counts, strict=False):
        assert 1 <= taken[label] <= count
        quota = count * amount / sum(counts)
        # The one image that every class keeps may come from the share of larger classes.
        assert taken[label] <= max(1, quota + 1)
        assert taken[label] >= min(count, np.floor(quota)) - len(counts)
    share = data.draw(st.floats(0.01, 1))
    assert names(manifest, share, 3) <= names(manifest, 1.0, 3)
    assert names(manifest, share / 2, 3) <= names(manifest, share, 3)
    if len(counts) == 2 and amount > 2:
        assert names(manifest, amount - 1, 3) <= names(manifest, amount, 3)


def test_with_three_classes_a_larger_number_may_have_less_of_one() -> None:
    manifest = drawn_from({"a": 6, "b": 6, "c": 2})
    found = [per_class(manifest, draw_annotated(manifest, amount, 0)) for amount in (10, 11)]
    assert found == [{"a": 4, "b": 4, "c": 2}, {"a": 5, "b": 5, "c": 1}]


def test_a_class_without_annotated_images_is_refused(folder: Path) -> None:
    write(folder, *[line.replace(",train,,1,", ",train,,,") for line in sound()])
    manifest = Manifest.read(folder / "m.csv")
    with pytest.raises(InputError, match=r"class 'real' is annotated.*column `annotated`"):
        draw_annotated(manifest, None, 0)


def test_training_images_without_any_annotation_are_refused(folder: Path) -> None:
    lines = [
        line.replace(",train,maps/a.png,,", ",train,,0,").replace(",train,,1,", ",train,,,")
        for line in sound()
    ]
    write(folder, *lines)
    manifest = Manifest.read(folder / "m.csv")
    assert not (manifest.annotated_mask & manifest.train_mask).any()
    with pytest.raises(InputError, match=r"no training image is annotated.*preceptor label"):
        draw_annotated(manifest, None, 0)


@pytest.mark.parametrize("amount", [0, -1, 1, 13, 0.0, -0.5, 1.5, float("nan"), True])
def test_amounts_that_cannot_be_had_are_refused(amount: float) -> None:
    with pytest.raises(InputError, match="annotated"):
        draw_annotated(drawn_from({"fake": 5, "real": 7}), amount, 0)
