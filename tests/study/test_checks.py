"""What is wrong with a study is told before anything is read or trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from preceptor.config.training import Training
from preceptor.data.manifest import Manifest
from preceptor.driver import run_study
from preceptor.errors import InputError
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.study.checks import check_devices, check_study
from preceptor.study.config import StudyConfig
from preceptor.study.options import Mapper
from preceptor.study.steps import Selection
from preceptor.study.teacher import teachers_of
from preceptor.study.workspaces import Workspaces
from preceptor.study_folder import open_study
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import run_serially, study


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("no_gpu")
def test_a_precision_that_this_machine_lacks_is_told_once(tmp_path: Path) -> None:
    study = StudyConfig(
        manifest=tmp_path / "none.csv",
        teachers=("test_byobnet",),
        students=("test_byobnet",),
        training=Training(precision="16-mixed"),
    )
    lines: list[str] = []
    with pytest.raises(InputError, match=r"training\.precision is 16-mixed") as caught:
        run_study(study, tmp_path / "out", tell=lines.append)
    assert "\n" not in str(caught.value)
    assert not lines  # no manifest was read


@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_this_machine_lacks_is_told_once() -> None:
    with pytest.raises(InputError, match=r"training\.device cuda"):
        check_devices(Training(device="cuda"))


@pytest.mark.usefixtures("no_gpu")
def test_what_is_auto_is_left_to_the_probe() -> None:
    check_devices(Training(precision="auto", channels_last="auto"))


def test_a_teacher_whose_maps_are_noise_can_be_left_out(tmp_path: Path) -> None:
    """It blocks the selection until the study says so; nothing finished is repeated then."""
    values = {
        "seeds": 1,
        "saliency": ("cam", "rise"),
        "rise": {"max_masks": 16, "tolerance": 0.0, "fill": 0.0},
        "controls": (),
        "ceiling": False,
    }
    asked = study(squares(tmp_path / "data"), **values)
    failed = run_serially(asked, tmp_path / "out").failed
    noise = "test_byobnet human-guided α 0.5, RISE"
    assert any("none of the" in one.reason and "tolerance" in one.reason for one in failed.values())
    assert failed[Selection("", "teacher").step_id].title == "choose among 2 Teachers"
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("run.json")}
    fewer = asked.model_copy(update={"excluded_teachers": (noise,)})
    result = run_serially(fewer, tmp_path / "out")
    assert not result.failed
    assert (
        before.items()
        <= {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("run.json")}.items()
    )
    assert "student" in set(pd.read_csv(tmp_path / "out" / "table.csv")["key"])


def test_teachers_that_are_left_out_must_be_known(tmp_path: Path) -> None:
    asked = study(squares(tmp_path / "data"), data_driven=True)
    names = [str(one) for one in teachers_of(asked)]
    for given, message in (
        (
            (*names[:1], "resnet50"),
            r"excluded_teachers: resnet50: not among the Teachers test_byobnet h.*;",
        ),
        (tuple(names), "excluded_teachers: no Teacher is left"),
    ):
        wrong = asked.model_copy(update={"excluded_teachers": given})
        with pytest.raises(InputError, match=message):
            check_study(wrong, Workspaces.of_study(wrong, tmp_path / "store"), networks=False)


def test_a_mapper_of_more_than_two_classes_is_told_with_its_own_remedy(tmp_path: Path) -> None:
    """Not as a head of a network, which nobody has written into the file."""
    manifest = squares(tmp_path / "data", classes=("plain", "marked", "other"))
    asked = study(manifest).model_copy(update={"mapper": Mapper()})
    expected = "^mapper: needs two classes, and there are 3; set mapper: false$"
    with pytest.raises(InputError, match=expected):
        check_study(asked, Workspaces.of_study(asked, tmp_path / "store"))


def test_a_decoder_of_a_backbone_that_starts_from_a_mapper_is_refused(tmp_path: Path) -> None:
    asked = study(squares(tmp_path / "data")).model_copy(
        update={
            "mapper": Mapper(start=True),
            "backbone_args": {"test_byobnet": {"decoder": "fpn"}},
        }
    )
    with pytest.raises(InputError, match="mapper: start needs the weights of a plain backbone"):
        check_study(asked, Workspaces.of_study(asked, tmp_path / "store"), networks=False)


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
    # The stride of 8 is set already.
    advice = "a larger input_size or backbone_args: {test_byobnet: {decoder: fpn}} has finer cells"
    assert note.endswith(advice)
    lines.clear()
    finer = settings | {"backbone_args": {"test_byobnet": {"decoder": "fpn", "decoder_stride": 4}}}
    finer["training"] = {"input_size": 96, "epochs": 1, "lr": 0.01}
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
