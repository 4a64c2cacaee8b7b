"""The summary of a manifest."""

from pathlib import Path

from preceptor.data.manifest import Manifest
from preceptor.data.notes import summary_table
from tests.data.sound_manifest import save


def test_the_summary_counts_by_split(folder: Path) -> None:
    save(folder / "images" / "c.png", (16, 12))
    summary = summary_table(Manifest.read(folder / "m.csv"))
    assert summary.index.tolist() == ["train", "val-unseen", "val", "test", "test-gan3"]
    assert summary.loc["train"].to_dict() == {
        "images": 2,
        "fake": 1,
        "real": 1,
        "annotated": 2,
        "with map": 1,
        "sources": 1,
        "groups": 1,
        "sizes": "8×6 – 16×12",
    }
    assert summary.loc["test", "sizes"] == "8×6"
