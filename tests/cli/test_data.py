"""`preceptor data`: what check counts and notes, what split writes, the options of formats."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.commands import assert_refused, here


def test_data_check_counts_what_there_is(data: Path) -> None:
    done = here("data", "check", data / "manifest.csv")
    assert done.code == 0
    assert not done.err
    table = [line.split() for line in done.out.splitlines() if line.strip()]
    assert "40 images" in done.out
    header = ["split", "images", "marked", "plain", "annotated", "with", "map"]
    assert header in [line[:7] for line in table]
    rows = {line[0]: line[1:6] for line in table if line[0] in ("train", "val", "test")}
    assert rows["train"] == ["20", "10", "10", "20", "10"]
    assert rows["val"] == rows["test"] == ["10", "5", "5", "10", "5"]
    assert done.out.count("32×32") == 3


def test_data_check_names_sets_that_lack_a_class(data: Path) -> None:
    table = pd.read_csv(data / "manifest.csv")
    marked = (table["label"] == "marked") & (table["split"] == "val")
    table.loc[marked & (table["source"] == "kind 0"), "split"] = "val-unseen"
    table.to_csv(data / "lacking.csv", index=False)
    done = here("data", "check", data / "lacking.csv")
    assert done.code == 0, done
    (note,) = [line for line in done.out.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: val-unseen: there is no image of class plain, so it has no AUC")
    assert "validation_negatives: val" in note


def test_cells_with_commas_quotes_and_line_breaks(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted", folder'
    folder.mkdir()
    table = pd.read_csv(data / "manifest.csv")
    for column in ("path", "saliency"):
        table[column] = table[column].map(lambda name: f"{data}/{name}", na_action="ignore")
    table["label"] = table["label"].replace("marked", 'marked, "by hand"')
    table["note"] = "one\ntwo; three, four"
    table.to_csv(folder / "a, b.csv", index=False)
    done = here("data", "check", folder / "a, b.csv")
    assert done.code == 0, done
    assert 'marked, "by hand"' in done.out
    again = here("data", "split", folder / "a, b.csv", "--to", folder / "c.csv")
    assert again.code == 0, again
    assert set(pd.read_csv(folder / "c.csv")["note"]) == {"one\ntwo; three, four"}


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["coco", "a.json", "--join", "test"], "--join belongs to und; leave it out"),
        (["und", "a.csv", "--labels", "l.csv"], "--labels is of the other formats; leave it out"),
        (["und", "a.csv"], "add --images and --heatmaps"),
        (["masks", "a"], "add --images"),
        (["xml", "a"], "choose one of coco, cvat, folders, labelme, labelstudio, masks"),
        (["voc", "a", "b"], "2 sources are given; this format has one file or folder"),
    ],
)
def test_options_of_a_format(tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert_refused(here("data", "import", *arguments, "--to", tmp_path / "out.csv"), [expected])
