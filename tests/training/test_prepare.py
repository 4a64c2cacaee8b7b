"""Run ids: what they depend on, and that words added later leave them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from preceptor.config.files import dump_config, load_config
from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.workspace import Workspace
from preceptor.training.prepare import run_id, run_id_of
from preceptor.utils.results import damaged_files, file_digest, finish, read_record
from tests.datasets import squares

# What ids leave out.
DEFAULTS: dict[str, Any] = {
    "manifest": "m",
    "backbone": "b",
    "weights": "none",
    "weights_identity": None,
    "last_layer": None,
    "backbone_args": {},
    "network": None,
    "positive": None,
    "rows": "all",
    "annotated": None,
    "annotated_seed": 0,
    "maps": {
        "kind": "human",
        "path": None,
        "identity": None,
        "shuffle_seed": None,
        "human": "replace",
        "shuffle_groups": False,
        "marks": False,
    },
    "guide_classes": None,
    "alpha": 0.5,
    "labels": "class",
    "validation_negatives": None,
    "seed": 0,
    "training": {
        "recipe": None,
        "input_size": None,
        "fit": "squash",
        "in_chans": 3,
        "distance": "l2",
        "mark_weight": 9.0,
        "cell_full": 0.25,
        "cam_class": "label",
        "cam_source": "head_input",
        "head": "softmax",
        "pool": "mean",
        "pool_top": 0.1,
        "readout": "none",
        "optimizer": "sgd",
        "lr": 0.005,
        "momentum": 0.9,
        "weight_decay": 1e-6,
        "schedule": "step",
        "warmup": 0.25,
        "clip": None,
        "balanced": False,
        "length": "epochs",
        "epochs": 50,
        "steps": None,
        "batch_size": 20,
        "checkpoint": "best_accuracy",
        "precision": "32-true",
        "channels_last": True,
        "threads": 1,
        "device": "auto",
        "cache": "memmap",
        "augmentation": {
            "flip": False,
            "quarter_turns": False,
            "crop_area": 1.0,
            "color": 0.0,
            "blur": 0.0,
            "jpeg": 0.0,
            "outside": "none",
            "outside_rate": 0.5,
            "outside_strength": None,
        },
        "consistency": 0.0,
    },
}


def run(**values: Any) -> RunConfig:
    return RunConfig.model_validate({"manifest": "m", "backbone": "b"} | values)


def identity(**values: Any) -> str:
    return run_id(run(**values), "rows", "none")


def test_the_defaults_are_those_that_ids_leave_out() -> None:
    advice = (
        "a new word: add it to this test with its default; a default that changed: raise NUMERICS "
        "in preceptor.training.prepare as well, since run ids leave defaults out and old runs "
        "would be taken "
        "for new ones"
    )
    assert run().model_dump(mode="json") == DEFAULTS, advice


def test_a_default_that_is_written_changes_nothing() -> None:
    assert identity(**DEFAULTS) == identity()
    assert identity(training={"recipe": "paper"}) == identity(training={"lr": 0.005})
    assert identity(training={"recipe": "cyborg"}) != identity()


def test_a_guided_run_with_all_defaults_is_not_an_unguided_one() -> None:
    assert identity() != identity(alpha=1.0)


@pytest.mark.parametrize(
    "values",
    [
        {"maps": {"kind": "centre"}},
        {"guide_classes": ("a",)},
        {"training": {"distance": "mse"}},
        {"training": {"distance": "kl"}},
        {"training": {"cam_class": "predicted"}},
    ],
    ids=str,
)
def test_what_guides_is_part_of_the_id_of_a_guided_run_alone(values: dict[str, Any]) -> None:
    assert identity(**values) != identity()
    assert identity(**values, alpha=1.0) == identity(alpha=1.0)
    plain = {"maps": {"kind": "none"}}
    assert identity(**(values | plain)) == identity(alpha=1.0)


def test_the_outside_of_maps_is_part_of_the_id_where_there_are_maps() -> None:
    def changed(**values: Any) -> dict[str, Any]:
        return {"training": {"augmentation": values}}

    consistent = {"training": {"consistency": 0.1, "augmentation": {"outside": "noise"}}}
    assert identity(**consistent) != identity(**changed(outside="noise"))
    assert identity(maps={"kind": "none"}, **consistent) == identity(alpha=1.0)
    settings: list[dict[str, Any]] = [
        {},
        {"outside": "noise"},
        {"outside": "mean"},
        {"outside": "noise", "outside_rate": 0.4},
        {"outside": "noise", "outside_strength": 0.1},
    ]
    for alpha in (0.5, 1.0):
        assert len({identity(alpha=alpha, **changed(**one)) for one in settings}) == 5
        blurred = changed(outside="noise")
        assert identity(alpha=alpha, **blurred) != identity(alpha=alpha)
    # Without a guidance term, the distance has no effect.
    masked = {"outside": "noise"}
    distance = {"training": {"distance": "mse", "augmentation": masked}}
    assert identity(alpha=1.0, **distance) == identity(alpha=1.0, **changed(**masked))
    # Without maps, or never drawn, nothing is changed.
    for one in settings:
        assert identity(maps={"kind": "none"}, **changed(**one)) == identity(alpha=1.0)
        assert identity(**changed(**(one | {"outside_rate": 0}))) == identity()


STORE = {"kind": "store", "path": "x", "identity": "t"}


def test_a_permutation_depends_on_every_class_with_human_maps(tmp_path: Path) -> None:
    """Also on classes that do not guide: all are permuted with the same random numbers."""
    manifest = squares(tmp_path / "data", classes=("plain", "first", "second"))
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    row = table.index[(table["label"] == "first") & (table["split"] == "train")][0]
    table.loc[row, "saliency"] = table.loc[row + 1, "saliency"]
    table.to_csv(tmp_path / "data" / "other.csv", index=False)

    def guided_by_second(name: str, **maps: Any) -> str:
        workspace = Workspace.open(tmp_path / "data" / name, tmp_path / "cache")
        chosen = {"guide_classes": ("second",), "maps": {"kind": "human"} | maps}
        return run_id_of(workspace, run(manifest=manifest, **chosen))

    assert guided_by_second("manifest.csv") == guided_by_second("other.csv")
    ids = [guided_by_second(name, shuffle_seed=0) for name in ("manifest.csv", "other.csv")]
    assert ids[0] != ids[1]


def test_a_resolved_config_reads_back_to_the_same_run(tmp_path: Path) -> None:
    config = run(
        training=Training(epochs=3),
        manifest=tmp_path / "m.csv",
    )
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml", RunConfig) == config


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 1}', '{"id": "x"}'])
def test_a_torn_record_counts_as_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert damaged_files(tmp_path) == ["run.json"]


def test_what_is_not_part_of_the_result_may_go(tmp_path: Path) -> None:
    for name in ("scores.parquet", "resume.safetensors"):
        (tmp_path / name).write_text(name)
    finish(tmp_path, {}, without="resume.safetensors")
    assert list(read_record(tmp_path)["files"]) == ["scores.parquet"]
    (tmp_path / "resume.safetensors").unlink()
    assert damaged_files(tmp_path) == []
    (tmp_path / "scores.parquet").unlink()
    assert damaged_files(tmp_path) == ["scores.parquet"]


def test_the_content_of_given_maps_is_read_once_for_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(squares(tmp_path / "data"), tmp_path / "cache")
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return file_digest(path)

    monkeypatch.setattr("preceptor.data.workspace.file_digest", counted)
    maps = MapSource(kind="store", path=tmp_path / "data" / "maps")
    base = RunConfig(manifest=Path("m"), backbone="b", positive="marked", maps=maps)
    ids = {run_id_of(workspace, base.model_copy(update={"seed": seed})) for seed in range(3)}
    assert len(ids) == 3
    assert len(read) == len(set(read)) == 30
