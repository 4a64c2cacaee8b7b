"""Manifests in the processes of a study: all of them work on the same tables."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from preceptor.errors import InputError
from preceptor.study.workspaces import Workspaces
from tests.datasets import squares


def other_label(file: Path) -> None:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    last = table.index[table["split"] == "test"][-1]
    table.loc[last, "label"] = {"marked": "plain", "plain": "marked"}[table.loc[last, "label"]]
    table.to_csv(file, index=False)


def fewer_rows(file: Path) -> None:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.drop(index=table.index[table["split"] == "test"][:1]).to_csv(file, index=False)


def other_map(file: Path) -> None:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    first, second = table["saliency"][table["saliency"] != ""][:2]
    (file.parent / first).write_bytes((file.parent / second).read_bytes())


def other_weight(file: Path) -> None:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.assign(map_weight="0.5").to_csv(file, index=False)


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Path, bytes]:
    """A manifest, and its workspaces as a worker receives them."""
    file = squares(tmp_path / "data")
    workspaces = Workspaces({0: file}, {file: tmp_path / "cache"})
    workspaces.verify()
    return file, pickle.dumps(workspaces)


def test_another_process_reads_the_same_table(sent: tuple[Path, bytes]) -> None:
    file, state = sent
    there: Workspaces = pickle.loads(state)
    assert there.opened == {}
    assert len(there.at(file).manifest) > 0
    again: Workspaces = pickle.loads(pickle.dumps(pickle.loads(state)))  # on to a third one
    assert again.known == there.known


@pytest.mark.parametrize("change", [other_label, fewer_rows, other_map, other_weight])
def test_a_manifest_that_was_edited_meanwhile_is_refused(
    sent: tuple[Path, bytes], change: Callable[[Path], None]
) -> None:
    """Otherwise an evaluation has the rows of the new manifest and the id of the old one."""
    file, state = sent
    change(file)
    there: Workspaces = pickle.loads(state)
    with pytest.raises(InputError, match="have changed since the command was started; start it"):
        there.at(file)
    assert there.opened == {}
