from pathlib import Path

import pandas as pd
import pytest

from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, ProblemsError
from preceptor.metrics.scores import fixed_thresholds
from preceptor.metrics.split_names import kind_of, kind_or_none, split_hint, split_kind

NAMES = {"train": "train", "val": "val", "val-unseen": "val", "test": "test", "test-a b": "test"}
NAMES |= dict.fromkeys(["vall", "val_unseen", "Val", "test1", "train-a", "", " val", "holdout"], "")


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_a_split_is_train_or_val_or_test_alone_or_with_a_dash(name: str, kind: str) -> None:
    assert (kind_or_none(name) or "") == kind
    assert kind_of(pd.Series([name], dtype="str")).tolist() == [kind]
    if kind:
        assert split_kind(name) == kind
    else:
        with pytest.raises(InputError, match=f"split {name!r} is unknown"):
            split_kind(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("vall", "val"),
        ("validation", "val"),
        ("dev", "val"),
        ("val_unseen", "val-unseen"),
        ("TEST", "test"),
        ("test_gan1", "test-gan1"),
        ("train-a", "train"),
    ],
)
def test_an_unknown_name_is_told_the_nearest_one(name: str, nearest: str) -> None:
    assert split_hint(name) == f"did you mean {nearest}?"
    assert kind_or_none(nearest)


def test_a_manifest_is_refused_by_row_and_nearest_name() -> None:
    splits = ["train", "train", "val", "test", "vall", "tests", "val_x"]
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(7)], "label": list("abababa")})
    with pytest.raises(ProblemsError) as caught:
        Manifest.from_frame(frame.assign(split=splits), "/")
    told = [str(problem) for problem in caught.value.problems if "split" in problem.what]
    assert told == [
        "row 4 (from 0): split 'vall' is unknown; did you mean val?",
        "row 5 (from 0): split 'tests' is unknown; did you mean test?",
        "row 6 (from 0): split 'val_x' is unknown; did you mean val-x?",
    ]


def test_sets_rows_and_thresholds_follow_the_one_rule() -> None:
    """A table that nobody checked: its odd names belong to no set."""
    splits = ["train", "train", "val", "valx", "val-b", "test", "test-b", "tester"]
    table = pd.DataFrame({"split": splits, "label": list("abababab")})
    manifest = Manifest(table, Path("/"))
    assert manifest.eval_splits("val") == ["val", "val-b"]
    assert manifest.eval_splits("test") == ["test", "test-b"]
    workspace = Workspace(manifest)
    assert workspace.split_rows("val").tolist() == [2, 4]
    assert workspace.split_rows("test").tolist() == [5, 6]
    scores = table.assign(score_a=[0.0, 0, 0.8, 0.1, 0.6, 0, 0, 0])
    scores["label"] = ["a", "b", "a", "b", "b", "a", "b", "b"]
    assert fixed_thresholds(scores, "a", ["eer"]) == {"eer": pytest.approx(0.7)}
