"""What a study leaves to the probe is decided once, kept, and part of what its runs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preceptor.config.run import RunConfig
from preceptor.config.training import Speed
from preceptor.config.yaml_file import dump_config, load_config, parse_config
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.study import auto_speed
from preceptor.study.auto_speed import decide_speed
from preceptor.study.baseline_runs import full_run
from preceptor.study.config import StudyConfig
from preceptor.study.run_configs import training_of
from preceptor.study.setting import Setting
from preceptor.study_folder import open_study
from tests.datasets import squares

AUTO = {"precision": "auto", "channels_last": "auto"}
SLOW, QUICK = Speed(), Speed(precision="bf16-mixed", channels_last=False)


def study(manifest: Path, **training: Any) -> StudyConfig:
    values = {
        "manifest": manifest,
        "positive": "marked",
        "teachers": ["test_byobnet"],
        "students": ["test_byobnet", "test_resnet"],
        "alphas": [0.5],
        "training": {"input_size": 64, "epochs": 100} | training,
    }
    return parse_config(values, StudyConfig)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backbones that were probed; test_byobnet is quicker in bf16."""
    asked: list[str] = []

    def choose(config: RunConfig, *_: Any, **__: Any) -> Speed:
        asked.append(config.backbone)
        return QUICK if config.backbone == "test_byobnet" else SLOW

    monkeypatch.setattr(auto_speed, "choose_speed", choose)
    return asked


def test_it_is_decided_once_by_backbone_and_kept(tmp_path: Path, probes: list[str]) -> None:
    manifest = squares(tmp_path / "data")
    asked = study(manifest, **AUTO)
    opened = open_study(asked, tmp_path, run=True, report_to=lambda line: None)
    protocol = opened.first.protocol
    assert probes == ["test_byobnet", "test_resnet"]
    assert protocol.study.speed == {"test_byobnet": QUICK, "test_resnet": SLOW}
    runs = [
        full_run(protocol, "baseline2", name, Setting(1.0), 0).config for name in asked.students
    ]
    assert [run.training.speed for run in runs if run] == [QUICK, SLOW]

    (tmp_path / "study.yaml").write_text(dump_config(protocol.study))
    again = open_study(asked, tmp_path, run=True, report_to=lambda line: None).first.protocol
    assert len(probes) == 2  # the earlier decision stands
    assert again.study == protocol.study
    reread = load_config(tmp_path / "study.yaml", StudyConfig)
    assert reread.speed == protocol.study.speed
    assert [full_run(again, "baseline2", name, Setting(1.0), 0).id for name in asked.students] == [
        full_run(protocol, "baseline2", name, Setting(1.0), 0).id for name in asked.students
    ]


def test_another_training_is_probed_anew(tmp_path: Path, probes: list[str]) -> None:
    manifest = squares(tmp_path / "data")
    first = open_study(study(manifest, **AUTO), tmp_path, run=True, report_to=print)
    (tmp_path / "study.yaml").write_text(dump_config(first.config))
    open_study(study(manifest, **AUTO, batch_size=7), tmp_path, run=True, report_to=print)
    assert len(probes) == 4


def test_a_choice_outlives_changes_that_keep_the_ids_and_a_damaged_config(
    tmp_path: Path, probes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device and cache are no part of the ids: finished runs would be lost without a reason."""
    manifest = squares(tmp_path / "data")
    first = open_study(study(manifest, **AUTO), tmp_path, run=True, report_to=print)
    (tmp_path / "study.yaml").write_text(dump_config(first.config))
    monkeypatch.setattr(auto_speed, "choose_speed", lambda *_, **__: Speed(channels_last=False))
    for change in ({"device": "cpu"}, {"cache": "none"}):
        asked = study(manifest, **AUTO, **change)
        again = open_study(asked, tmp_path, run=True, report_to=print)
        assert again.config.speed == first.config.speed
        assert {step.id for step in again.start()} == {step.id for step in first.start()}
    (tmp_path / "study.yaml").write_text("teachers: [")
    again = open_study(study(manifest, **AUTO), tmp_path, run=True, report_to=print)
    assert again.config.speed == first.config.speed


def test_studies_of_one_store_have_one_choice(
    tmp_path: Path, probes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, store = squares(tmp_path / "data"), tmp_path / "store"
    asked = study(manifest, **AUTO).model_copy(update={"store": store})
    one = open_study(asked, tmp_path / "one", run=True, report_to=print)
    monkeypatch.setattr(auto_speed, "choose_speed", lambda *_, **__: Speed(channels_last=False))
    for run in (True, False):  # also of a plan that is only looked at
        two = open_study(asked, tmp_path / "two", run=run, report_to=print)
        assert two.config.speed == one.config.speed
        assert {step.id for step in two.start()} == {step.id for step in one.start()}
    other = open_study(
        study(manifest, **AUTO, batch_size=7).model_copy(update={"store": store}),
        tmp_path / "other",
        run=True,
        report_to=print,
    )
    assert set(other.config.speed.values()) == {Speed(channels_last=False)}

    # A folder that has decided keeps its choice, and a store that has none learns of it.
    (tmp_path / "one").mkdir(exist_ok=True)
    (tmp_path / "one" / "study.yaml").write_text(dump_config(one.config))
    for file in (store / "speed").iterdir():
        file.write_text("damaged")
    for name in ("one", "two"):
        found = open_study(asked, tmp_path / name, run=True, report_to=print)
        assert found.config.speed == one.config.speed


def test_what_is_named_is_not_probed(tmp_path: Path, probes: list[str]) -> None:
    manifest = squares(tmp_path / "data")
    plain = study(manifest)
    found = open_study(plain, tmp_path, run=True, report_to=lambda line: None).config
    assert found == plain
    assert not probes
    half = study(manifest, precision="auto", channels_last=True)
    found = open_study(half, tmp_path, run=True, report_to=lambda line: None).config
    kept = training_of(found, "test_byobnet").speed
    assert kept == Speed(precision="bf16-mixed", channels_last=True)


def test_short_trainings_are_not_probed(tmp_path: Path, probes: list[str]) -> None:
    manifest = squares(tmp_path / "data")
    for steps, probed in ((99, []), (100, ["test_byobnet", "test_resnet"])):
        asked = study(manifest, **AUTO, epochs=1, length="steps", steps=steps)
        found = open_study(asked, tmp_path / str(steps), run=True, report_to=print).config
        assert probes == probed
        assert found.speed["test_resnet"] == SLOW


def test_a_run_by_itself_names_its_own(tmp_path: Path) -> None:
    for word in AUTO:
        values = {"manifest": "m", "backbone": "b", "training": {word: "auto"}}
        with pytest.raises(InputError, match=rf"training\.{word} is auto"):
            parse_config(values, RunConfig)


def test_a_speed_for_nobody_is_told(tmp_path: Path) -> None:
    values = {"manifest": "m", "teachers": ["a"], "students": ["a"], "speed": {"b": {}}}
    with pytest.raises(InputError, match="speed name backbones that are not used: b"):
        parse_config(values, StudyConfig)


def test_the_real_probe_chooses_something(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    asked = study(manifest, **AUTO).model_copy(update={"students": ("test_byobnet",)})
    told: list[str] = []
    workspaces = open_study(
        study(manifest), tmp_path, run=True, report_to=lambda line: None
    ).first.protocol.workspaces
    found = decide_speed(asked, [workspaces.first.manifest], tmp_path, None, told.append)
    assert set(found.speed) == {"test_byobnet"}
    assert "s per step" in told[-1]


def test_a_plan_that_is_looked_at_is_not_probed(tmp_path: Path, probes: list[str]) -> None:
    manifest = squares(tmp_path / "data")
    asked = study(manifest, **AUTO)
    found = open_study(asked, tmp_path, run=False, report_to=lambda line: None).config
    assert not probes
    assert training_of(found, "test_byobnet").speed == SLOW


def test_every_domain_counts_in_what_is_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most classes, whichever domain comes first."""
    few = Manifest.read(squares(tmp_path / "few"))
    many = Manifest.read(squares(tmp_path / "many", splits={"train": 80, "val": 8, "test": 8}))
    more = many.table.assign(label=many.table["label"].where(many.table.index % 3 > 0, "other"))
    three = Manifest(more, many.root)
    asked: list[list[str]] = []

    def choose(_: Any, classes: list[str], **__: Any) -> Speed:
        asked.append(classes)
        return SLOW

    monkeypatch.setattr(auto_speed, "choose_speed", choose)
    unknown = study(few.source or Path(), **AUTO).model_copy(update={"students": ("test_byobnet",)})
    for name, manifests in (("one", [few, three]), ("other", [three, few])):
        decide_speed(unknown, manifests, tmp_path / name)
    assert asked == 2 * [["marked", "other", "plain"]]
