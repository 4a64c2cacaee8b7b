"""The record of a training is read as it was written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.errors import InputError
from preceptor.training.record import (
    RunRecord,
    SetMetrics,
    flat_metrics,
    read_set_metrics,
    set_metrics,
)
from preceptor.utils.results import damaged_files

RECORD = RunRecord(
    id="c0ffee",
    config={"seed": 3},
    classes=("real", "fake"),
    input_size=64,
    grid=(4, 4),
    saliency="cam",
    training_images=24,
    guided_images=12,
    uninformative_maps=1,
    images_seen=48,
    best_epoch=2,
    metrics={"epoch": 2.0, "loss": 0.5, "val_accuracy": 0.75, "val_auc": 0.875},
    seconds=1.5,
    device="cpu",
    versions={"torch": "2"},
)
NAMES = st.text(
    st.characters(codec="ascii", exclude_categories=("C",)), min_size=1, max_size=12
).map(lambda text: f"val-{text}")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    assert RunRecord.read(tmp_path) == RECORD
    assert damaged_files(tmp_path) == []
    assert read_set_metrics(tmp_path) == {"val": SetMetrics(0.75, 0.875)}


def test_what_does_not_apply_is_not_written(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    written = json.loads((tmp_path / "run.json").read_text())
    assert not {"parts", "peak_memory", "device_memory"} & set(written)
    assert list(written)[-3:] == ["device", "versions", "files"]


def test_a_record_that_lacks_a_value_is_named(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    file = tmp_path / "run.json"
    values = json.loads(file.read_text())
    del values["saliency"]
    file.write_text(json.dumps(values))
    with pytest.raises(
        InputError, match=r"run\.json: not the record of a training \(saliency is missing\)"
    ):
        RunRecord.read(tmp_path)


@given(
    st.dictionaries(
        st.just("val") | NAMES,
        st.builds(SetMetrics, st.floats(0, 1), st.floats(0, 1), st.none() | st.floats(-1, 1)),
    )
)
def test_measures_of_sets_come_back_from_their_names(sets: dict[str, SetMetrics]) -> None:
    others = {"loss": 0.1, "map_correlation": 0.2, "grad_map": math.nan}
    assert set_metrics(others | flat_metrics(sets)) == sets
