"""`preceptor data split`: shares, held-out sources, and the table that it writes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.commands import assert_refused, here


def test_data_split_goes_out_and_comes_back(data: Path, tmp_path: Path) -> None:
    arguments = ["data", "split", data / "manifest.csv", "--train", "0.5", "--val", "0.25"]
    arguments += ["--test", "0.25", "--hold-out", "kind 0=test-unseen"]
    for name in ("one", "two"):
        done = here(*arguments, "--to", tmp_path / f"{name}.csv")
        assert done.code == 0, done
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert here(*arguments, "--to", tmp_path / "seed.csv", "--seed", "1").code == 0
    assert (tmp_path / "one.csv").read_bytes() != (tmp_path / "seed.csv").read_bytes()

    before, after = pd.read_csv(data / "manifest.csv"), pd.read_csv(tmp_path / "one.csv")
    assert list(after["label"]) == list(before["label"])
    assert set(after.loc[after["source"] == "kind 0", "split"]) == {"test-unseen"}
    added = after[(after["split"] == "test-unseen") & (after["source"] != "kind 0")]
    assert set(added["label"]) == {"plain"}
    said = f"test-unseen: images of missing classes were added from other sources ({len(added)}"
    assert f"{said} of plain)" in done.out
    for name, count in after["split"].value_counts().items():
        assert f"{name} {count}" in done.out
    # The written table lies in another folder, and its files are found from there.
    assert here("data", "check", tmp_path / "one.csv").code == 0


@pytest.mark.parametrize("kind", ["train", "val", "test"])
def test_a_split_without_a_share_is_refused_by_its_option(
    data: Path, tmp_path: Path, kind: str
) -> None:
    shares = {"train": 0.5, "val": 0.5, "test": 0.5} | {kind: 0}
    options = [text for name, share in shares.items() for text in (f"--{name}", share)]
    done = here("data", "split", data / "manifest.csv", "--to", tmp_path / "x.csv", *options)
    refusal = f"--{kind} 0: no image would be in a {kind} split; set a share above 0"
    assert_refused(done, [refusal])
    assert ("--hold-out SOURCE=" in done.err) == (kind != "train")
    assert not (tmp_path / "x.csv").exists()


def test_a_held_out_source_may_be_the_only_test_set(data: Path, tmp_path: Path) -> None:
    shares = ["--train", 0.5, "--val", 0.5, "--test", 0, "--hold-out", "kind 0=test-unseen"]
    done = here("data", "split", data / "manifest.csv", "--to", tmp_path / "x.csv", *shares)
    assert done.code == 0, done
    assert set(pd.read_csv(tmp_path / "x.csv")["split"]) == {"train", "val", "test-unseen"}


def test_splits_of_the_manifest_are_replaced_whatever_they_are(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data / "manifest.csv")
    table["path"] = [str(data / path) for path in table["path"]]
    table["saliency"] = [str(data / path) if path else "" for path in table["saliency"].fillna("")]
    table["group"] = [f"g{row // 2}" for row in range(len(table))]
    folds = [row % 5 for row in range(len(table))]  # which divide the groups
    names = ["training" if fold else "validate" for fold in folds]
    for name, old in (("folds", folds), ("names", names)):
        table.assign(split=old).to_csv(tmp_path / f"{name}.csv", index=False)
        done = here("data", "split", tmp_path / f"{name}.csv", "--to", tmp_path / f"{name}-new.csv")
        assert done.code == 0, done
    found = pd.read_csv(tmp_path / "folds-new.csv")
    assert set(found["split"]) == {"train", "val", "test"}
    assert (found.groupby("group")["split"].nunique() == 1).all()
    assert (tmp_path / "folds-new.csv").read_bytes() == (tmp_path / "names-new.csv").read_bytes()
