"""The runs of a study: ids, what they share, steps that make their maps, controls, lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forgeries import PRESETS
from preceptor.config.files import parse_config
from preceptor.config.run import RunConfig
from preceptor.errors import InputError
from preceptor.maps.sources import build_map_targets
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.plan import Plan, outline
from preceptor.study.protocol import Protocol, Teacher, teachers_of
from preceptor.study.steps import Arm, Select, Step, Train
from preceptor.study.workspaces import Workspaces
from tests.datasets import FORGED_STUDY, SQUARES_STUDY, squares

SETTINGS: dict[str, Any] = FORGED_STUDY | {
    "alphas": [0.1],
    "training": {"input_size": 32, "epochs": 1, "batch_size": 16},
}
NET = "test_byobnet"


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="the forged photographs are scikit-image's")
    return write_draws(tmp_path_factory.mktemp("draws"), PRESETS["tiny"], [0, 1])


def protocol(manifest: Path, **changes: Any) -> Protocol:
    study = parse_config(SETTINGS | {"manifest": manifest} | changes, StudyConfig)
    store = manifest.parents[1] / "store"
    return Protocol(study, Workspaces.of_study(study, store), store)


def chain(one: Protocol, seed: int = 0) -> list[Step]:
    """The Student of the first Teacher, after the steps that make its maps."""
    return one.student(teachers_of(one.study)[0], NET, Setting(0.1), seed)


def arm(step: Step) -> Arm:
    assert isinstance(step.work, Train)
    return step.work.arm


def test_every_seed_is_trained_and_tested_on_its_own_draw(draws: Path) -> None:
    one = protocol(draws)
    assert one.study.draws
    found = [chain(one, seed) for seed in (0, 1)]
    for seed, steps in enumerate(found):
        manifest = Path(str(draws).replace("{seed}", str(seed)))
        assert {step.config.manifest for step in steps if step.config is not None} == {manifest}
    assert not {step.id for step in found[0]} & {step.id for step in found[1]}
    scored = [one.evaluation(steps[-1]).id for steps in found]
    assert scored[0] != scored[1]


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        # Classes without human maps cannot be guided by them.
        ({"guide_classes": ["forged"]}, ["train", "maps"]),
        ({"alphas": [0.1, 0.5]}, ["train", "maps", "train"]),
        ({"training": SETTINGS["training"] | {"distance": "mse"}}, []),
    ],
)
def test_studies_share_what_their_settings_leave_equal(
    draws: Path, changes: dict[str, Any], shared: list[str]
) -> None:
    known = {step.id for step in chain(protocol(draws))}
    other = chain(protocol(draws, **changes))
    assert [step.kind for step in other if step.id in known] == shared


def test_the_second_generation_is_taught_by_the_first_student(draws: Path) -> None:
    plain, second = chain(protocol(draws)), chain(protocol(draws, generations=2))
    assert [step.kind for step in second] == ["train", "maps", "train", "maps", "train"]
    assert second[2].id == plain[-1].id  # the backbone and α are the Teacher's here
    assert arm(second[2]).label == "generation 2"
    assert second[3].needs == (second[2].id,)
    assert second[4].id not in {step.id for step in plain}


@pytest.mark.parametrize("kind", ["human", "mapper", "data"])
def test_the_second_generation_learns_labels_and_maps(tmp_path: Path, kind: str) -> None:
    one = squares_protocol(
        squares(tmp_path / "data"), mapper=True, data_driven=True, generations=2, alphas=[0.2]
    )
    own = teacher(one, kind)
    steps = one.student(own, NET, Setting(0.1), 0)
    (second,) = (step for step in steps if step.kind == "train" and arm(step).generation == 2)
    assert arm(second).alpha == (own.alpha if kind == "human" else 0.2)
    configs = [step.config for step in (second, steps[-1]) if step.config is not None]
    assert [config.maps.marks for config in configs] == [kind == "mapper", False]


def test_a_run_has_the_annotated_images_of_its_seed(draws: Path) -> None:
    fixed, drawn = (protocol(draws, annotated_per_seed=each) for each in (False, True))
    for one, seed in ((fixed, 0), (drawn, 1)):
        of_a = one.baseline1(NET, Setting(0.1), 1), one.mapper("mapper", NET, 1)
        of_t = one.ceiling(NET, Setting(0.1), 1), one.baseline2(NET, Setting(1.0), 1)
        steps = (*of_a, *of_t, one.mapper("mapper_all", NET, 1))
        # Which classes its maps guide depends on the marks that the mapper saw.
        teacher = teachers_of(one.study)[0]
        for last in (
            one.student(teacher, NET, Setting(0.1), 1)[-1],
            one.control("centre", teacher, NET, Setting(0.1), 1)[-1],
        ):
            assert last.config is not None
            of_student = (last.config.rows, last.config.annotated, last.config.annotated_seed)
            assert of_student == ("all", 0.5, seed)
        configs = [step.config for step in steps if step.config is not None]
        found = [(config.rows, config.annotated, config.annotated_seed) for config in configs]
        of_every_map = ("annotated", None, 0)
        assert found == [("annotated", 0.5, seed)] * 2 + [("all", None, 0)] * 2 + [of_every_map]


def test_a_baseline_1_and_a_teacher_of_equal_settings_are_one_run(draws: Path) -> None:
    one = protocol(draws)
    assert one.baseline1(NET, Setting(0.1), 0).id == chain(one)[0].id
    assert arm(chain(one)[0]).role == "teacher"


def test_the_mixed_control_uses_the_human_maps_of_a_alone(draws: Path) -> None:
    one = protocol(draws)
    mixed = one.control("mixed", teachers_of(one.study)[0], NET, Setting(0.1), 0)[-1].config
    assert mixed is not None
    workspace = one.workspaces.of(0)
    guided = workspace.human_maps_from(mixed) & workspace.manifest.map_mask
    everything = workspace.manifest.map_mask & workspace.manifest.train_mask
    assert 0 < guided.sum() < everything.sum()


def test_shuffled_human_maps_are_those_of_the_ceiling(draws: Path) -> None:
    one = protocol(draws)
    teacher = teachers_of(one.study)[0]
    ceiling = one.ceiling(NET, Setting(0.1), 1).config
    found = [one.control("shuffled_human", teacher, NET, Setting(0.1), seed) for seed in (0, 1)]
    control = found[1][-1].config
    assert ceiling is not None
    assert control is not None
    assert control.maps.shuffle_seed == 1
    assert control.model_copy(update={"maps": ceiling.maps}) == ceiling
    assert found[0][-1].id != found[1][-1].id


def test_the_masked_control_sees_the_marked_regions_alone(draws: Path) -> None:
    one = protocol(draws, guide_classes=["forged"], mapper=True)
    teacher = next(teacher for teacher in teachers_of(one.study) if teacher.kind == "mapper")
    steps = one.control("masked", teacher, NET, Setting(0.1), 1)
    assert [step.kind for step in steps] == ["train", "maps", "train"]
    run = steps[-1].config
    assert run is not None
    assert not run.guided
    assert run.changes_outside
    changes = run.training.augmentation
    assert (changes.outside, changes.outside_rate) == ("mean", 1.0)
    # Were a class or an image left out, the change itself would show the label.
    assert run.guide_classes is None
    assert (run.maps.kind, run.maps.human, run.maps.marks) == ("store", "keep", False)
    assert run.maps.path == one.maps_folder(steps[1].id)
    assert run.annotated == 0.5
    assert arm(steps[-1]) == Arm("masked", NET, 1.0, str(teacher))


CONTROLS = ("shuffled", "centre", "pca", "shuffled_human", "mixed", "masked")


def test_every_control_has_the_students_grid_and_a_choice_of_its_own(draws: Path) -> None:
    grid = [0.9, 0.5, 0.1]
    plan = Plan(protocol(draws, alphas=grid, controls=CONTROLS))
    winner = teachers_of(plan.study)[0]
    steps = plan.stage_two(winner)
    trainings = [step.work for step in steps if isinstance(step.work, Train)]
    for role in ("student", *CONTROLS):
        trained = {
            (work.arm.alpha, work.config.seed) for work in trainings if work.arm.role == role
        }
        own = [1.0] if role == "masked" else grid
        assert trained == {(alpha, seed) for alpha in own for seed in (0, 1)}, role
    student, *others = [step for step in steps if step.kind == "select"]
    assert len(others) == len(CONTROLS)
    assert isinstance(student.work, Select)
    waited = student.work.selection.step_id  # of the last round
    assert all(waited in step.needs for step in others)  # test sets are scored after it
    unique = {step.id: step.title for step in steps}.values()
    assert len(unique) == len(set(unique))


def test_an_outline_leaves_no_trace_and_covers_controls(draws: Path) -> None:
    plan = Plan(protocol(draws, controls=CONTROLS, generations=2))
    first, later = outline(plan)
    assert not plan.members
    assert not plan.steps
    titles = [step.title for step in [*first, *later]]
    # Both Teachers, human-trained and data-driven, with two seeds each.
    assert sum(title.startswith("train generation 2") for title in titles) == 4
    for control in CONTROLS:
        assert sum(f"train {control} " in title for title in titles) == 2


def test_draws_that_do_not_fit_together_are_refused(draws: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        source = Path(str(draws).replace("{seed}", str(seed)))
        text = source.read_text().replace("images/", f"{source.parent}/images/")
        text = text.replace("maps/", f"{source.parent}/maps/")
        if seed:
            text = text.replace(",test-unseen,", ",test-other,")
        (tmp_path / f"{seed}.csv").write_text(text)
    one = protocol(tmp_path / "{seed}.csv")
    with pytest.raises(InputError, match=r"the same evaluation sets.*test-other"):
        one.workspaces.verify()


def test_what_is_wrong_with_any_draw_is_told_at_once(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the forged photographs are scikit-image's")
    pattern = write_draws(tmp_path / "draws", PRESETS["tiny"], [0, 1])
    (tmp_path / "draws" / "0" / "images" / "train" / "000001.png").write_bytes(b"no picture")
    (tmp_path / "draws" / "1" / "maps" / "val" / "000003.png").unlink()
    with pytest.raises(InputError) as caught:
        protocol(pattern).workspaces.verify()
    for text in (
        "0/manifest.csv: 1 problem",
        "train/000001.png",
        "1/manifest.csv: 1 problem",
        "val/000003.png",
    ):
        assert text in str(caught.value)


def squares_protocol(manifest: Path, **changes: Any) -> Protocol:
    values = SQUARES_STUDY | {"manifest": manifest, "training": {"input_size": 32}, "seeds": 1}
    study = parse_config(values | changes, StudyConfig)
    store = manifest.parent / "store"
    return Protocol(study, Workspaces.of_study(study, store), store)


def teacher(one: Protocol, kind: str) -> Teacher:
    return next(found for found in teachers_of(one.study) if found.kind == kind)


def run_of(one: Protocol, role: Any, by: Teacher) -> RunConfig:
    if role == "student":
        step = one.student(by, "test_byobnet", Setting(0.5), 0)[-1]
    else:
        step = one.control(role, by, "test_byobnet", Setting(0.5), 0)[-1]
    assert step.config is not None
    return step.config


def guided(one: Protocol, config: RunConfig) -> set[str]:
    """Classes of the training images that a run without a map store guides."""
    workspace = one.workspaces.of(0)
    rows = workspace.training_rows(config)
    images = workspace.images(config.training.image_format(32))
    made = build_map_targets(
        config, workspace.manifest, images, rows, workspace.human_maps_from(config)
    )
    assert made is not None
    return set(workspace.manifest.table["label"].iloc[rows[made.weight > 0]])


def test_scores_of_a_run_on_other_test_images_have_another_id(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    before = squares_protocol(manifest)
    run = before.baseline2("test_byobnet", Setting(1.0), 0)
    scored = before.evaluation(run).id
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    table.drop(table.index[table["split"] == "test"][0]).to_csv(manifest, index=False)
    after = squares_protocol(manifest)
    assert after.baseline2("test_byobnet", Setting(1.0), 0).id == run.id
    assert after.evaluation(run).id != scored


@pytest.mark.parametrize("role", ["centre", "pca"])
def test_controls_of_a_mapper_guide_the_class_with_marks(tmp_path: Path, role: str) -> None:
    one = squares_protocol(squares(tmp_path / "data"), mapper=True)
    classifier, mapper = (teacher(one, kind) for kind in ("human", "mapper"))
    assert guided(one, run_of(one, role, classifier)) == {"plain", "marked"}
    assert guided(one, run_of(one, role, mapper)) == {"marked"}
    assert run_of(one, "student", mapper).maps.marks


@pytest.mark.parametrize(("positive", "classes"), [("plain", ()), ("marked", ("plain",))])
def test_a_mapper_detects_if_only_the_positive_class_has_marks(
    tmp_path: Path, positive: str, classes: tuple[str, ...]
) -> None:
    manifest = squares(tmp_path / "data")
    table = pd.read_csv(manifest)
    for label in classes:  # one training image of this class is marked as well
        row = table.index[(table["split"] == "train") & (table["label"] == label)][0]
        table.loc[row, "saliency"] = table["saliency"].dropna().iloc[0]
    table.to_csv(manifest.with_name("more.csv"), index=False)
    assert squares_protocol(manifest, mapper=True).mapper_detects
    more = manifest.with_name("more.csv")
    assert not squares_protocol(more, mapper=True, positive=positive).mapper_detects


def test_masks_guide_all_classes_with_the_maps_of_a_mapper(tmp_path: Path) -> None:
    training = {"input_size": 32, "distance": "cells", "cam_class": "decision"}
    one = squares_protocol(squares(tmp_path / "data"), mapper=True, training=training)
    assert guided(one, run_of(one, "centre", teacher(one, "mapper"))) == {"plain", "marked"}


def test_controls_of_given_maps_guide_the_classes_that_have_some(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    one = squares_protocol(manifest, maps={"some": manifest.parent / "maps"})
    given, human = (teacher(one, kind) for kind in ("given", "human"))
    assert guided(one, run_of(one, "student", given)) == {"marked"}
    assert guided(one, run_of(one, "centre", given)) == {"marked"}
    assert run_of(one, "centre", human).guide_classes is None


@pytest.mark.parametrize("method", ["cells", "cam"])
def test_a_given_store_of_a_mapper_shows_marks(tmp_path: Path, method: str) -> None:
    manifest, store = squares(tmp_path / "data"), tmp_path / "maps"
    table = pd.read_csv(manifest, dtype=str)
    names = table.loc[table["split"] == "train", "path"].to_numpy(object)
    info = StoreInfo("a", method, "squash", 32, ("marked", "plain"), {})
    maps, zeros = np.ones((len(names), 2, 2), np.float16), np.zeros(len(names), np.int32)
    write_store(store, MapStore(info, names, maps, zeros, zeros.astype(np.float32)))
    one = squares_protocol(manifest, maps={"given": store})
    given = teacher(one, "given")
    assert run_of(one, "student", given).maps.marks == (method == "cells")
    classes = {"marked"} if method == "cells" else {"marked", "plain"}
    assert guided(one, run_of(one, "centre", given)) == classes


@pytest.mark.parametrize("role", ["shuffled", "shuffled_human"])
def test_maps_are_shuffled_over_the_groups_of_a_manifest(tmp_path: Path, role: str) -> None:
    manifest = squares(tmp_path / "data")
    alone = squares_protocol(manifest)
    assert not run_of(alone, role, teacher(alone, "human")).maps.shuffle_groups
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    train = table["split"] == "train"
    table.loc[train, "group"] = [f"object {number // 4}" for number in range(train.sum())]
    table.to_csv(manifest, index=False)
    several = squares_protocol(manifest)
    assert run_of(several, role, teacher(several, "human")).maps.shuffle_groups
