"""`preceptor data check`: what it counts, and what it notes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.commands import here


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
