"""Repair of a small network that reads a stamp outside the marks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import preceptor
from preceptor.auditing import repair as steps
from preceptor.errors import InputError
from preceptor.metrics.auc import auc
from tests.auditing.stamped import SPLITS, write_data
from tests.commands import assert_refused, here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("stamped"))


@pytest.fixture
def model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(folder)
    return f"{folder / 'networks_of_repair.py'}"


def clean_auc(model: Path, folder: Path) -> float:
    """AUC in `test`, where the stamp tells nothing."""
    names = [folder / f"test-{at}.png" for at in range(SPLITS["test"])]
    scores = preceptor.load(model)([*map(str, names)], maps=False).score
    return auc(np.arange(len(names)) % 2 == 1, scores)


def changed(folder: Path, name: str, **columns: object) -> Path:
    table = pd.read_csv(folder / "manifest.csv", keep_default_na=False)
    for column, change in columns.items():
        assert callable(change)
        table[column] = change(table)
    table.to_csv(folder / name, index=False)
    return folder / name


def test_a_repaired_model_predicts_without_the_stamp(
    folder: Path, model: str, tmp_path: Path
) -> None:
    import onnxruntime  # which starts a thread

    to = tmp_path / "repaired"
    arguments = (f"{model}:stamp", folder / "manifest.csv", "--positive", "sick", "--to", to)
    outcome = here("repair", *arguments)
    assert outcome.code == 0, outcome.err
    assert "gain +" in outcome.out
    assert "shown" in outcome.out
    assert "networks_of_repair:stamp, which must be on PYTHONPATH" in outcome.out
    opened = preceptor.auditing.models.open_model(f"{model}:stamp", classes=("plain", "sick"))
    assert opened.guided is not None
    preceptor.models.build.save_model(opened.guided, tmp_path / "before")
    before = clean_auc(tmp_path / "before", folder)
    assert before < 0.7 < 0.95 < clean_auc(to, folder)
    record = json.loads((to / "repair.json").read_text())
    assert record["folds"] == 0
    assert record["gain"]["low"] > 0
    assert record["strength"] in [float(one) for one in record["scores"]]
    assert "before" in (to / "repair.html").read_text()
    # The folder predicts, exports, and is not written again.
    assert here("predict", to, folder / "test-0.png").code == 0
    assert here("export", to, "--out", tmp_path / "repaired.onnx").code == 0
    names = [str(folder / f"test-{at}.png") for at in range(SPLITS["test"])]
    pixels = np.stack([np.asarray(Image.open(name)) for name in names]).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(tmp_path / "repaired.onnx")
    [scores] = session.run(["score"], {session.get_inputs()[0].name: pixels})
    own = preceptor.load(to)(names, maps=False).score
    np.testing.assert_allclose(np.ravel(scores), own, atol=1e-5)
    assert preceptor.load_model(to).spec.thresholds.keys() >= {"eer"}
    assert_refused(here("repair", *arguments), ["exists already"])
    again = preceptor.repair(to, folder / "manifest.csv", tmp_path / "again")
    assert again.result.gain.low <= 0  # there is nothing left to repair
    assert not again.result.worse


def test_a_teacher_marks_all_training_images(folder: Path, model: str, tmp_path: Path) -> None:
    few = changed(
        folder, "few.csv",
        annotated=lambda t: (t["split"] != "train") | (t.index < 24),
        saliency=lambda t: t["saliency"].where((t["split"] != "train") | (t.index < 24), ""),
    )  # fmt: skip
    said: list[str] = []
    found = preceptor.repair(
        f"{model}:random", few, tmp_path / "to", positive="sick", teacher=True, input_size=32,
        tell=said.append,
    )  # fmt: skip
    assert said[0] == "training a Teacher on 12 marks"
    assert "of 60 training images, 30 with marks, by a Teacher's maps" in found.sentences[1]
    assert clean_auc(tmp_path / "to", folder) > 0.95


def test_without_marks_in_validation_training_images_are_split(
    folder: Path, model: str, tmp_path: Path
) -> None:
    alone = changed(
        folder, "alone.csv",
        saliency=lambda t: t["saliency"].where(t["split"] == "train", ""),
        annotated=lambda t: t["split"] == "train",
        group=lambda t: t.index // 4,
    )  # fmt: skip
    table = pd.read_csv(alone, keep_default_na=False)
    table[table["split"] == "train"].to_csv(alone, index=False)  # a repair tests on nothing else
    found = preceptor.repair(f"{model}:stamp", alone, tmp_path / "to", positive="sick")
    assert found.result.folds == 3
    assert found.audits is None
    assert "No validation image is marked" in found.sentences[2]
    assert clean_auc(tmp_path / "to", folder) > 0.95


def test_a_worse_model_is_not_written(folder: Path, model: str, tmp_path: Path) -> None:
    """By maps of the stamp, the last layer learns it, and forgets the evidence."""
    to = tmp_path / "to"
    arguments = ("--positive", "sick", "--maps", folder / "stamps", "--to", to)
    outcome = here("repair", f"{model}:evidence", folder / "manifest.csv", *arguments)
    assert outcome.code == 1, outcome
    assert "is worse on swapped images" in outcome.err
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_repaired_is_one_line(folder: Path, model: str, tmp_path: Path) -> None:
    manifest, to = folder / "manifest.csv", tmp_path / "to"
    unmarked = changed(folder, "none.csv", saliency=lambda t: "", annotated=lambda t: 0)
    single = changed(
        folder, "single.csv",
        annotated=lambda t: (t["label"] == "sick") & (t["split"] != "test"),
    )  # fmt: skip
    for name, table, message in (
        ("undeclared", manifest, "@preceptor.network_factory above the function"),
        ("damaged", manifest, "not finite"),
        ("stamp", unmarked, "mark"),
        ("stamp", single, "class"),
    ):
        with pytest.raises(InputError, match=message):
            preceptor.repair(f"{model}:{name}", table, to, positive="sick")
    with pytest.raises(InputError, match="'test' is no validation set; the manifest has val"):
        preceptor.repair(f"{model}:stamp", manifest, to, splits=["test"])
    with pytest.raises(InputError, match="give one of the two"):
        preceptor.repair(f"{model}:stamp", manifest, to, teacher=True, maps=folder)
    with pytest.raises(InputError, match="does not exist; name a new folder"):
        preceptor.repair(f"{model}:stamp", manifest, to / "deeper")
    assert not [*tmp_path.iterdir()]


def test_an_interrupted_repair_leaves_nothing(
    folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "repair_page", stop)  # the last file of the folder
    with pytest.raises(KeyboardInterrupt):
        preceptor.repair(f"{model}:stamp", folder / "manifest.csv", tmp_path / "to")
    assert not [*tmp_path.iterdir()]
