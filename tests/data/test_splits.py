"""Splits and draws of annotated images."""

import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.data.manifest import Manifest
from preceptor.data.notes import missing_class_notes, missing_classes
from preceptor.data.splits import draw_annotated, make_splits
from preceptor.errors import InputError
from tests.data.sound_manifest import sound, write

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}

shares = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(
    lambda parts: {
        name: part / sum(parts)
        for name, part in zip(("train", "val", "test", "test-b"), parts, strict=False)
    }
)
images = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from(["", "s", "t"]), st.integers(-8, 8)),
    min_size=1,
    max_size=80,
)


def table(rows: list[tuple[str, str, int]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"{index}.png" for index in range(len(rows))],
            "label": [label for label, _, _ in rows],
            "source": [source for _, source, _ in rows],
            "group": [f"g{group}" if group > 0 else "" for _, _, group in rows],
        }
    )


@settings(max_examples=60, deadline=None)
@given(rows=images, fractions=shares, seed=st.integers(0, 2**32 - 1))
def test_groups_stay_whole_and_shares_are_met(
    rows: list[tuple[str, str, int]], fractions: dict[str, float], seed: int
) -> None:
    frame = table(rows)
    result = make_splits(frame, fractions, seed)
    pd.testing.assert_frame_equal(result.drop(columns="split"), frame)
    assert result["split"].isin(list(fractions)).all()

    grouped = result[result["group"] != ""]
    assert (grouped.groupby("group")["split"].nunique() == 1).all()

    largest = max([1, *grouped["group"].value_counts()])
    for split, share in fractions.items():
        assert abs((result["split"] == split).sum() - share * len(frame)) <= largest + 1e-5

    pd.testing.assert_frame_equal(make_splits(frame, fractions, seed), result)


def test_every_label_and_source_is_shared_out_evenly() -> None:
    rows = [
        (x, s, 0)
        for x, s, n in [("x", "s", 400), ("y", "s", 100), ("y", "t", 60)]
        for _ in range(n)
    ]
    result = make_splits(table(rows), SHARES, 0)
    counts = result.groupby(["label", "source"])["split"].value_counts().unstack()
    assert counts["train"].tolist() == [280, 70, 42]
    assert counts["val"].tolist() == [40, 10, 6]
    assert counts["test"].tolist() == [80, 20, 12]


def by_label(result: pd.DataFrame) -> dict[str, list[int]]:
    """Numbers of images of each label in train, val and test."""
    counts = pd.crosstab(result["label"], result["split"])
    found = counts.reindex(columns=["train", "val", "test"], fill_value=0)
    return {str(label): row.tolist() for label, row in found.iterrows()}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 30)), min_size=1, max_size=80),
    fractions=shares,
    seed=st.integers(0, 1000),
)
def test_without_groups_splits_and_labels_are_met_to_within_one_image(
    rows: list[tuple[str, int]], fractions: dict[str, float], seed: int
) -> None:
    frame = table([(label, f"s{source}", 0) for label, source in rows])
    result = make_splits(frame, fractions, seed)
    for split, share in fractions.items():
        inside = result["split"] == split
        assert abs(inside.sum() - share * len(frame)) < 1 + 1e-6
        for label, part in result.groupby("label"):
            assert abs(inside[part.index].sum() - share * len(part)) < 1 + 1e-6, label


@pytest.mark.parametrize("seed", range(4))
def test_a_label_with_few_images_goes_to_train_first(seed: int) -> None:
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    rows = [("x", "s", 0)] * 20 + [
        ("one", "a", 0),
        *[("two", "b", 0)] * 2,
        *[("three", "c", 0)] * 3,
    ]
    found = by_label(make_splits(table(rows), shares, seed))
    assert found["one"] == [1, 0, 0]
    assert found["two"][0] == 1
    assert found["three"] == [1, 1, 1]
    groups = [("x", "s", i // 4 + 1) for i in range(40)]
    groups += [("one", "a", 20)] * 2 + [("two", "b", 21 + i // 3) for i in range(6)]
    found = by_label(make_splits(table(groups), shares, seed))
    assert found["one"] == [2, 0, 0]
    assert found["two"][0] == 3


@pytest.mark.parametrize(
    ("fractions", "hold_out", "expected"),
    [
        ({"train": 0.5, "test": 0.4}, {}, "add up to 0.9"),
        ({"train": 1.5, "test": -0.5}, {}, "not above 0"),
        ({"train": float("nan")}, {}, "not above 0"),
        ({}, {}, "add up to 0"),
        ({"train": 0.5, "dev": 0.5}, {}, "split 'dev': unknown"),
        (SHARES, {"s": "unseen"}, "split 'unseen': unknown"),
        (SHARES, {"s": "test"}, "has a share as well"),
        (SHARES, {"s": "train"}, "it is assigned to train"),
        (SHARES, {"u": "test-u"}, "known: s, t"),
        (SHARES, {"s": "test-s"}, "group 'g1'"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(
    fractions: dict[str, float], hold_out: dict[str, str], expected: str
) -> None:
    frame = table([("x", "s", 1), ("y", "t", 1), ("x", "t", 2), ("y", "s", 3)])
    with pytest.raises(InputError, match=expected):
        make_splits(frame, fractions, 0, hold_out)


def attacks(real: int, kinds: dict[str, int], group: int = 0) -> pd.DataFrame:
    """Real images of one source, and a source of fake images for each kind of attack."""
    rows = [("real", "camera", 0)] * real
    rows += [("fake", kind, 0) for kind, count in kinds.items() for _ in range(count)]
    frame = table(rows)
    if group:
        frame["group"] = [f"{s} {i // group}" for i, s in enumerate(frame["source"])]
    return frame


def test_a_held_out_attack_type_gets_real_images_in_proportion() -> None:
    frame = attacks(300, {"noise": 20, "print": 80})
    result = make_splits(frame, SHARES, 0, {"noise": "val-unseen"})
    counts = result.groupby("split")["label"].value_counts().unstack()
    assert counts.loc["val-unseen"].to_dict() == {"fake": 20, "real": 60}  # 3 to 1, as in the whole
    assert set(result.loc[result["source"] == "noise", "split"]) == {"val-unseen"}
    assert counts.loc["train"].to_dict() == {"fake": 56, "real": 168}  # shares of the rest
    pd.testing.assert_frame_equal(make_splits(frame, SHARES, 0, {"noise": "val-unseen"}), result)
    other = make_splits(frame, SHARES, 1, {"noise": "val-unseen"})
    assert (other["split"] == "val-unseen").ne(result["split"] == "val-unseen").any()


@settings(max_examples=50, deadline=None)
@given(rows=images, seed=st.integers(0, 1000), sets=st.sampled_from(["one", "two", "both"]))
def test_sets_are_filled_with_whole_groups_of_what_they_lack(
    rows: list[tuple[str, str, int]], seed: int, sets: str
) -> None:
    frame = table([(label, source or "free", group) for label, source, group in rows])
    frame["group"] = np.where(frame["group"] == "", "", frame["group"] + frame["source"])
    targets = {"one": ("val-a",), "two": ("val-a", "test-b"), "both": ("val-a", "val-a")}[sets]
    held = dict(zip("st", targets, strict=False))
    held = {source: name for source, name in held.items() if source in set(frame["source"])}
    result = make_splits(frame, SHARES, seed, held)
    own = result["source"].isin(list(held))
    for name in set(held.values()):
        inside = result["split"] == name
        assert set(result.loc[inside & own, "source"].map(held)) == {name}
        assert not set(result.loc[inside & own, "label"]) & set(result.loc[inside & ~own, "label"])
    grouped = result[result["group"] != ""]
    assert (grouped.groupby("group")["split"].nunique() == 1).all()
    for label, free in result[~own].groupby("label"):
        moved = free["split"].isin(list(held.values())).sum()
        assert moved <= len(free) / 2, label


def test_groups_that_are_larger_than_what_is_wanted_still_fill_a_set() -> None:
    frame = attacks(60, {"noise": 2, "print": 58}, group=10)
    result = make_splits(frame, SHARES, 0, {"noise": "val-unseen"})
    inside = result[result["split"] == "val-unseen"]
    assert inside["label"].value_counts().to_dict() == {"real": 10, "fake": 2}


def test_a_class_whose_groups_hold_other_classes_too_stays_missing() -> None:
    frame = table([("real", "camera", 1), ("fake", "print", 1)] * 5 + [("fake", "noise", 0)] * 4)
    frame["group"] = ["" if s == "noise" else f"g{i // 2}" for i, s in enumerate(frame["source"])]
    result = make_splits(frame, SHARES, 0, {"noise": "val-unseen"})
    assert set(result.loc[result["split"] == "val-unseen", "source"]) == {"noise"}
    manifest = Manifest(result, Path())
    assert missing_classes(manifest)["val-unseen"] == ["real"]
    (note,) = [one for one in missing_class_notes(manifest) if one.startswith("val-unseen")]
    assert "validation_negatives: val" in note


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
    train = Manifest(one.table[one.train_mask].reset_index(drop=True), one.root)
    assert names(one, 20, 5) == names(train, 20, 5)


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
    if amount > len(counts):
        assert names(manifest, amount - 1, 3) <= names(manifest, amount, 3)


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
