"""What is wrong with a study, its time and space, recommended settings, own networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from preceptor import load
from preceptor.config.files import parse_config
from preceptor.config.run import RunConfig
from preceptor.config.training import StudyTraining, Training
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.models.build import load_model, save_model
from preceptor.study import checks
from preceptor.study.checks import cache_bytes, check_study, estimate_seconds, weight_bytes
from preceptor.study.config import RECOMMENDED, RECOMMENDED_TRAINING, Setting, StudyConfig
from preceptor.study.protocol import run_config
from preceptor.study.steps import Arm, Evaluate, JoinMaps, Step, Train
from preceptor.study.workspaces import Workspaces
from preceptor.study_folder import open_study
from preceptor.training.prepare import build_for, image_formats
from tests.datasets import SQUARES_STUDY, squares
from tests.documents import ROOT
from tests.studies import run_serially, study


def test_marks_smaller_than_half_a_cell_are_noted(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", size=(128, 128))
    for file in (tmp_path / "data" / "maps").iterdir():
        mark = np.zeros((128, 128), np.uint8)
        mark[40:48, 40:48] = 255
        Image.fromarray(mark).save(file)
    settings = SQUARES_STUDY | {
        "manifest": manifest,
        "training": {"input_size": 32, "epochs": 1, "lr": 0.01},
    }
    lines: list[str] = []
    open_study(StudyConfig.model_validate(settings), tmp_path, run=True, report_to=lines.append)
    (note,) = [line for line in lines if "half a cell" in line]
    assert note.startswith("note: 100% of the human maps mark less than half a cell of the 4 × 4")
    assert note.endswith("a larger input_size has finer cells")  # the stride of 8 is set already
    lines.clear()
    finer = settings | {"training": {"input_size": 256, "epochs": 1, "lr": 0.01}}
    open_study(StudyConfig.model_validate(finer), tmp_path, run=True, report_to=lines.append)
    assert not any("half a cell" in line for line in lines)


@pytest.mark.parametrize("stored", [False, True])
def test_given_maps_of_other_images_are_refused_before_anything_is_trained(
    tmp_path: Path, stored: bool
) -> None:
    manifest = squares(tmp_path / "data", size=(8, 8))
    names = [f"other{place}.png" for place in range(3)]
    own = Manifest.read(manifest).table
    own = own[own["split"] == "train"]["name"].tolist()

    def given(folder: Path, images: list[str]) -> Path:
        if stored:
            maps = np.ones((len(images), 2, 2), np.float16)
            scores, classes = np.ones(len(images), np.float32), np.zeros(len(images), np.int32)
            info = StoreInfo("a", "cam", "squash", 8, ("marked", "plain"), {})
            paths = np.array(images, object)
            write_store(folder, MapStore(info, paths, maps, classes, scores))
        else:
            for name in images:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ones((2, 2), np.uint8)).save(folder / name)
        return folder

    def check(folder: Path) -> None:
        config = study(manifest, maps={"masks": folder})
        workspaces = Workspaces.of_study(config, tmp_path / "store")
        check_study(config, workspaces, networks=False)

    check(given(tmp_path / "one", [*names, own[0]]))
    with pytest.raises(
        InputError, match=r"maps\.masks: .* contains none of the \d+ training images"
    ):
        check(given(tmp_path / "none", names))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"maps\.masks: .* no map has the name of one"):
        check(tmp_path / "empty")


@pytest.mark.parametrize("lacking", [{"guide_classes": ["plain"]}, {"map_weight": "0"}])
def test_marks_that_cannot_guide_are_none(tmp_path: Path, lacking: dict[str, Any]) -> None:
    manifest = squares(tmp_path / "data", size=(8, 8))
    if weight := lacking.pop("map_weight", ""):
        table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
        table.assign(map_weight=weight).to_csv(manifest, index=False)
    config = study(manifest, **lacking)
    with pytest.raises(InputError, match="has a human map"):
        check_study(config, Workspaces.of_study(config, tmp_path / "store"), networks=False)


def test_changes_that_tell_the_class_are_noted(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", size=(8, 8))  # maps of the class marked
    for guidances, classes, found in (
        ({"a": {"method": "outside"}, "b": {"method": "latent"}}, None, ["outside: human maps"]),
        ({"a": {"method": "outside"}}, ["plain", "marked"], []),
        ({"a": {"method": "rank"}}, None, []),
    ):
        config = study(manifest, guidances=guidances, guide_classes=classes)
        workspaces = Workspaces.of_study(config, tmp_path / "store")
        notes = check_study(config, workspaces, networks=False)
        assert [note[: note.find(" guide only marked")] for note in notes] == found


def test_what_a_network_cannot_give_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", size=(8, 8))
    names = {"teachers": ["test_vit"], "students": ["test_vit"], "backbone_args": {}}
    for more, message in (
        ({"mapper": True}, "test_vit: mapper needs an exact class activation map"),
        ({"training": {"input_size": 160, "readout": "auto"}}, "test_vit: readout: auto needs"),
    ):
        given: dict[str, Any] = names | {"training": {"input_size": 160}} | more
        config = study(manifest, **given)
        with pytest.raises(InputError, match=message):
            check_study(config, Workspaces.of_study(config, tmp_path / "store"))


def test_trainings_count_their_validation_and_jobs_share_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[str] = []

    def seconds_of_step(run: RunConfig, classes: list[str], jobs: int) -> float:
        measured.append(run.backbone)
        return run.training.batch_size / 10

    monkeypatch.setattr(checks, "step_seconds", seconds_of_step)
    config = study(Path("m.csv"))
    assert config.training.epochs == 1
    runs = [
        RunConfig(manifest=Path("m.csv"), backbone=name, training=config.training.of_run())
        for name in ("rate of one", "rate of two")
    ]
    arm = Arm("baseline2", "any", 1.0)
    steps = [
        *(Step(f"t{k}", Train(runs[k % 2], arm), "", cost=100) for k in range(4)),
        Step("e", Evaluate(runs[0], "t0"), "", cost=20),
        Step("a", JoinMaps(()), "", cost=1000),  # without a model
    ]
    # Images: four times 100 and a third of 30, scored before and after the one epoch; and 20.
    whole = 10 + 40 * checks.REAL_STEP + 5 * checks.STEP_OVERHEAD
    for jobs, seconds in ((1, whole), (2, whole / 2), (0, whole)):
        assert estimate_seconds(steps, config, ["a", "b"], 30, jobs) == pytest.approx(seconds)
    assert measured == ["rate of one", "rate of two"] * 3  # once a kind of training and jobs
    # A control that trains the last layer alone has no epoch, and scores the images once.
    dfr = Step("d", Train(runs[0].model_copy(update={"last_layer": "val"}), arm), "", cost=10)
    assert estimate_seconds([dfr], config, ["a", "b"], 30, 1) == pytest.approx(
        1 + checks.REAL_STEP + checks.STEP_OVERHEAD
    )


def test_disk_space_of_models_and_caches(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 8, "val": 4, "test": 4})
    config = study(manifest, training={"input_size": 32, "epochs": 1, "batch_size": 8})
    backbone = config.students[0]
    run = run_config(config, backbone, 0, Setting(1.0))
    train = Train(run, Arm("baseline2", backbone, 1.0))
    steps = [Step("a", train, ""), Step("b", train, ""), Step("e", Evaluate(run, "a"), "")]
    model = build_for(run, ["marked", "plain"], load_weights=False)
    save_model(model, tmp_path / "model")
    written = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert weight_bytes(steps, ["marked", "plain"]) == pytest.approx(2 * written, rel=0.05)

    workspace = Workspaces.of_study(config, tmp_path / "store")
    workspace.verify([form for _ in config.backbone_names for form in image_formats(run)])
    filled = sum(file.stat().st_size for file in (tmp_path / "store").rglob("*.pixels"))
    assert cache_bytes(config, workspace.all()) == filled


PLAIN: dict[str, Any] = {
    "manifest": "manifest.csv",
    "positive": "fake",
    "teachers": ["resnet18"],
    "students": ["resnet18"],
}


def small_study(**settings: Any) -> StudyConfig:
    return parse_config(PLAIN | settings, StudyConfig, base=ROOT)


def test_they_are_those_of_the_frozen_study() -> None:
    file = ROOT / "benchmarks" / "evidence" / "spots_evidence" / "study.yaml"
    frozen, defaults = yaml.safe_load(file.read_text()), StudyTraining().model_dump()
    for name, value in RECOMMENDED.items():
        given = frozen.get(name, StudyConfig.model_fields[name].default)
        if name == "mapper":
            given = given == {}
        # Those that need data of the benchmark, or add rows to the table alone.
        if name == "controls":
            later = ("mixed", "dfr", "repair", "repair_shuffled")
            given = [*(one for one in given if one not in ("masked", "dfr")), *later]
        assert (tuple(given) if isinstance(value, tuple) else given) == value
    for name, value in RECOMMENDED_TRAINING.items():
        assert frozen["training"].get(name, defaults[name]) == value


def test_a_recipe_is_the_settings_written_out() -> None:
    training = {"epochs": 3}
    named = small_study(recipe="recommended", training=training)
    written = small_study(**RECOMMENDED, training=training | RECOMMENDED_TRAINING)
    assert named.model_copy(update={"recipe": None}) == written
    assert named.mapper is True
    assert named.training.readout == "auto"


def test_given_settings_have_precedence() -> None:
    found = small_study(
        recipe="recommended", mapper=False, alphas=[0.3], training={"readout": "none"}
    )
    assert (found.mapper, found.alphas, found.training.readout) == (False, (0.3,), "none")
    assert found.teacher_alphas == RECOMMENDED["teacher_alphas"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "best"}, "recipe: "),
        ({"recipe": "recommended", "training": 3}, "training: "),
        ({"training": Training(head="sigmoid")}, "training: it has settings of a single run"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_study(**settings)


OWN: dict[str, Any] = {
    "backbones": {"mine": "tests.networks:small"},
    "backbone_args": {"mine": {"width": 4}},
}


@pytest.mark.slow
def test_a_study_of_an_own_network(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    own = {**OWN, "backbone_args": {"mine": {"width": 4}, "test_byobnet": {"output_stride": 8}}}
    config = study(
        manifest, **own, teachers=("mine",), students=("mine", "test_byobnet"), seeds=1,
        controls=(), ceiling=False
    )  # fmt: skip
    run_serially(config, tmp_path / "study")
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    assert {"mine", "test_byobnet"} <= set(table["backbone"])
    best = tmp_path / "study" / "best"
    model = load_model(best)
    if model.spec.backbone == "mine":
        assert (model.spec.factory, model.spec.backbone_args) == (
            "tests.networks:small",
            {"width": 4},
        )
    image = next((tmp_path / "data" / "images").glob("test*.png"))
    assert load(best)(image).map.shape == model.grid()
