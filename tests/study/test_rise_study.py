"""A study that marks by CAM and by RISE: whose maps teach better, and what is asked of RISE."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.config.files import load_config, parse_config
from preceptor.errors import InputError
from preceptor.maps.store import MapStore, read_store
from preceptor.report.methods import methods
from preceptor.results.domain import gather
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.plan import outline
from preceptor.study.protocol import teachers_of
from preceptor.study.steps import MakeMaps
from preceptor.study_folder import open_study, reopen
from preceptor.utils.results import read_record
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import run_serially

MASKS = 160
SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "data_driven": True,
    "seeds": [0, 1],
    "teacher_alphas": [0.5],
    "controls": [],
    "ceiling": False,
    "saliency": ["cam", "rise"],
    "rise_masks": MASKS,
    "training": {"input_size": 32, "epochs": 1, "batch_size": 8, "lr": 0.01},
}
HUMAN, DATA = "test_byobnet human-guided α 0.5", "test_byobnet data-driven"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("rise study") / "data")


@pytest.fixture(scope="module")
def finished(manifest: Path) -> Path:
    study = parse_config(SETTINGS | {"manifest": manifest}, StudyConfig)
    out = manifest.parents[1] / "study"
    result = run_serially(study, out)
    assert not result.failed
    assert result.missing == 0
    return out


def stores(out: Path) -> dict[str, MapStore]:
    return {str(folder): read_store(folder) for folder in sorted(out.glob("store/maps/[!.]*"))}


def test_every_teacher_marks_in_both_ways(finished: Path) -> None:
    found = list(stores(finished).values())
    methods = sorted((store.info.method, store.info.teacher) for store in found)
    teachers = {teacher for _, teacher in methods}
    assert len(teachers) == 4  # human-guided and data-driven, two seeds
    assert methods == sorted((method, one) for method in ("cam", "rise") for one in teachers)
    for store in found:
        assert store.maps.shape == (24, 4, 4)
        assert store.probabilities is not None
        if store.info.method == "cam":
            assert store.error is None
            continue
        assert store.error is not None
        assert store.info.settings["max_masks"] == MASKS
        assert store.info.settings["tolerance"] == 0.3125  # 0.05 · 1000 / 160
        assert 24 * MASKS >= int(store.info.settings["masks"]) > 0


def test_what_rise_took_is_in_the_record(finished: Path) -> None:
    for folder, store in stores(finished).items():
        record = read_record(Path(folder))
        if store.info.method == "rise":
            assert record["masks"] == store.info.settings["masks"]
            assert record["unsettled"] == (~store.settled).sum()
        else:
            assert "masks" not in record


def test_students_learn_from_the_maps_that_settled(finished: Path) -> None:
    plan = reopen(finished).first
    protocol = plan.protocol
    unsettled = 0
    for teacher in teachers_of(protocol.study):
        for seed in (0, 1):
            steps = protocol.student(teacher, "test_byobnet", Setting(0.5), seed)
            *_, marking, student = steps
            store = read_store(protocol.maps_folder(marking.id))
            record = read_record(protocol.run_folder(student.id))
            assert record["guided_images"] == store.settled.sum()
            unsettled += int((~store.settled).sum())
    assert unsettled > 0  # so that it was about something


def test_rise_is_compared_with_cam(finished: Path) -> None:
    compared = pd.read_csv(finished / "comparisons.csv")
    lines = compared[compared["question"] == "saliency"]
    assert set(zip(lines["a"], lines["b"], strict=True)) == {
        (f"Students of {whose}, RISE", f"Students of {whose}, CAM") for whose in (HUMAN, DATA)
    }
    questions = compared[compared["question"] == "RQ1"]
    assert set(zip(questions["a"], questions["b"], strict=True)) == {
        (f"Students of {HUMAN}, {how}", f"Students of {DATA}, {how}") for how in ("CAM", "RISE")
    }
    results = pd.read_csv(finished / "results.csv")
    here = results[(results["set"] == "test-unseen") & results["source"].isna()]
    here = here[here["role"] == "student"].set_index(["teacher", "seed"])["auc"]
    for line in lines.itertuples():
        whose = str(line.a).removeprefix("Students of ").removesuffix(", RISE")
        expected = [here[f"{whose}, RISE", seed] - here[f"{whose}, CAM", seed] for seed in (0, 1)]
        by_seed = [float(value) for value in str(line.difference_by_seed).split()]
        np.testing.assert_allclose(by_seed, expected, atol=1e-5)
        assert line.mean == pytest.approx(np.mean(expected), abs=1e-5)
        assert np.isnan(line.p_holm)


def test_the_report_says_which_teacher_is_better(finished: Path) -> None:
    choice = json.loads((finished / "selection.json").read_text())["teacher"]
    assert {row["name"] for row in choice["table"]} == {
        f"{whose}, {how}; Student α 0.5" for whose in (HUMAN, DATA) for how in ("CAM", "RISE")
    }
    html = (finished / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert f"Teacher selected on validation: {choice['winner']}" in html
    assert html.count("RISE or CAM: Students of test_byobnet") == 2
    assert "RISE maps minus CAMs" in html


def test_ids_depend_on_the_settings_of_rise(manifest: Path, finished: Path, tmp_path: Path) -> None:
    def ids(**changes: Any) -> dict[str, set[str]]:
        study = parse_config(SETTINGS | {"manifest": manifest} | changes, StudyConfig)
        plan = open_study(study, tmp_path / "none", run=False, report_to=lambda _: None).first
        first, _ = outline(plan)
        found: dict[str, set[str]] = {"train": set(), "cam": set(), "rise": set()}
        for step in first:
            if isinstance(step.work, MakeMaps):
                found[step.work.method].add(step.work.joined or step.id)
            elif step.kind == "train":
                found["train"].add(step.id)
        return found

    usual = ids()
    assert {len(usual["cam"]), len(usual["rise"])} == {4}
    assert usual == ids()
    folders = {folder.name for folder in finished.glob("store/maps/[!.]*")}
    assert folders == usual["cam"] | usual["rise"]
    other = ids(rise_masks=62)
    assert other["cam"] == usual["cam"]
    assert not other["rise"] & usual["rise"]
    # Of the Students those by RISE alone are others: two Teachers, two seeds.
    assert len(usual["train"] - other["train"]) == 4


def test_a_marking_that_was_cut_short_is_made_again(
    manifest: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    shutil.copytree(finished, out)
    whole = stores(out)
    (victim, store) = next(item for item in whole.items() if item[1].info.method == "rise")
    (Path(victim) / "run.json").unlink()  # written last: without it nothing is finished
    (Path(victim) / "maps-00000.parquet").write_bytes(b"half")
    result = run_serially(load_config(out / "study.yaml", StudyConfig), out)
    assert result.computed == 3  # a shard of T, one of validation images, and their join
    again = read_store(Path(victim))
    for name in ("paths", "maps", "classes", "scores", "error"):
        np.testing.assert_array_equal(getattr(again, name), getattr(store, name))
    assert again.info == store.info
    for name in ("results.csv", "comparisons.csv", "selection.json"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"saliency": ["rise", "rise"]}, "saliency has duplicate values"),
        ({"saliency": ["lime"]}, "saliency"),
        ({"rise_masks": 1}, "rise_masks"),
    ],
)
def test_what_rise_cannot_do_is_refused(
    manifest: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(SETTINGS | {"manifest": manifest} | changes, StudyConfig)


def test_a_study_whose_maps_never_settle_says_so(manifest: Path, tmp_path: Path) -> None:
    values = SETTINGS | {"manifest": manifest, "seeds": 1, "data_driven": False}
    values |= {"saliency": ["rise"], "rise_masks": 10}
    result = run_serially(parse_config(values, StudyConfig), tmp_path)
    assert any("none of the 24 maps" in one.reason for one in result.failed.values())
    assert any("max_masks" in one.reason for one in result.failed.values())


def test_each_method_answers_for_its_own_maps(finished: Path) -> None:
    choice = json.loads((finished / "selection.json").read_text())["teacher"]
    agreement = {row["name"]: row["agreement"] for row in choice["table"]}
    for name, value in agreement.items():
        if "RISE" in name:
            assert value != agreement[name.replace("RISE", "CAM")]
            assert -1 <= value <= 1


def test_the_methods_say_which_maps_were_guided_and_how_teachers_marked(
    finished: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "study"
    shutil.copytree(finished, copy)

    def said() -> str:
        plan = reopen(copy).first
        return methods(plan, gather(plan))[1]

    assert "map of the label (class activation map)" in said()
    assert "Teachers' maps: the guided map and RISE (default estimator of the" in said()
    for file in (copy / "store" / "runs").glob("*/run.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps(record | {"saliency": "gradcam"}))
    assert "map of the label (Grad-CAM through the head)" in said()
