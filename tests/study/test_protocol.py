"""The runs that a study makes, by their ids, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forged_settings import PRESETS
from preceptor.config.yaml_file import parse_config
from preceptor.errors import InputError, ProblemsError
from preceptor.study.baseline_runs import annotated_run, full_run
from preceptor.study.checks import check_study
from preceptor.study.config import StudyConfig
from preceptor.study.control_runs import control_run
from preceptor.study.options import Variant
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.setting import Setting
from preceptor.study.stages import outline, stage_two, variants_and_tests
from preceptor.study.steps import Arm, Step, Train
from preceptor.study.student_runs import student_run, variant_run
from preceptor.study.teacher import teachers_of
from preceptor.study.teacher_runs import MEMBER_STRIDE
from preceptor.study.workspaces import Workspaces
from tests.datasets import FORGED_STUDY

SETTINGS: dict[str, Any] = FORGED_STUDY | {
    "alphas": [0.1],
    "training": {"input_size": 32, "epochs": 1, "batch_size": 16},
}


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="the forged photographs are scikit-image's")
    return write_draws(tmp_path_factory.mktemp("draws"), PRESETS["tiny"], [0, 1])


def protocol(manifest: Path, **changes: Any) -> Protocol:
    study = parse_config(SETTINGS | {"manifest": manifest} | changes, StudyConfig)
    store = manifest.parents[1] / "store"
    return Protocol(study, Workspaces.of_study(study, store), store)


def chain(one: Protocol, seed: int = 0, **words: Any) -> list[Step]:
    teacher = teachers_of(one.study)[0]
    if not words:
        return student_run(one, teacher, "test_byobnet", Setting(0.1), seed)
    study = one.study.model_copy(update={"variants": {"changed": Variant(**words)}})
    changed = replace(one, study=study)
    return variant_run(changed, "changed", teacher, "test_byobnet", Setting(0.1), seed)


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


def test_titles_of_students_tell_their_teachers_apart(draws: Path) -> None:
    one = protocol(draws, saliency=["cam", "rise"])
    titles = {
        student_run(one, teacher, "test_byobnet", Setting(0.1), 0)[-1].title
        for teacher in teachers_of(one.study)
    }
    assert len(titles) == len(teachers_of(one.study)) > 1
    only = protocol(draws, data_driven=False)
    assert "of" not in chain(only)[-1].title.split()  # the only Teacher is not named


def test_students_of_a_committee_share_no_teacher(draws: Path) -> None:
    manifest = Path(str(draws).replace("{seed}", "0"))  # one table for both seeds
    one = protocol(manifest)
    teachers = []
    for seed in (0, 1):
        steps = chain(one, seed, committee=3)
        assert [step.kind for step in steps] == [*["train", "maps"] * 3, "committee", "train"]
        trained = [step for step in steps if step.kind == "train"][:-1]
        seeds = [step.config.seed for step in trained if step.config is not None]
        assert seeds == [seed, seed + MEMBER_STRIDE, seed + 2 * MEMBER_STRIDE]
        teachers.append({step.id for step in trained})
        assert chain(one, seed)[0].id == trained[0].id  # its first member is the study's Teacher
    assert not teachers[0] & teachers[1]


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        ({"human_maps": "keep"}, ["train", "maps"]),
        ({"trust": "score"}, ["train", "maps"]),
        ({"guide_classes": ("forged",)}, ["train", "maps"]),
        ({"post": {"power": 2.0}}, ["train", "maps"]),
        ({"human_post": {"power": 2.0}}, []),
        ({"distance": "mse"}, ["train", "maps"]),
        ({"distance": "dice"}, ["train", "maps"]),
        ({"soft_labels": 0.5}, ["train", "maps"]),
        ({"teacher_rows": "all"}, []),
        ({"teacher_alpha": 0.5}, []),
    ],
)
def test_a_variant_shares_what_it_does_not_change(
    draws: Path, words: dict[str, Any], shared: list[str]
) -> None:
    one = protocol(draws)
    plain, varied = chain(one), chain(one, **words)
    common = [step.kind for step in varied if step.id in {other.id for other in plain}]
    assert common == shared
    assert varied[-1].id != plain[-1].id


def test_the_second_generation_is_taught_by_the_first_student(draws: Path) -> None:
    one = protocol(draws)
    plain, second = chain(one), chain(one, generations=2)
    assert [step.kind for step in second] == ["train", "maps", "train", "maps", "train"]
    assert second[2].id == plain[-1].id  # the backbone and α are the Teacher's here
    assert second[3].needs == (second[2].id,)
    assert second[4].id not in {step.id for step in plain}


@pytest.mark.parametrize("generations", [1, 2])
def test_kept_human_maps_are_those_of_the_annotated_alone(draws: Path, generations: int) -> None:
    one = protocol(draws)
    for step in chain(one, human_maps="keep", generations=generations):
        if step.kind == "train":
            assert step.config is not None
            workspace = one.workspaces.of(0)
            used = workspace.human_maps_from(step.config)[workspace.training_rows(step.config)]
            assert used.sum() == workspace.annotated(step.config).sum() < workspace.train_mask.sum()


HULL: dict[str, Any] = {"threshold": 0.5, "shape": "hull"}


def test_what_is_done_to_human_maps_reaches_every_run_that_they_guide(draws: Path) -> None:
    plain, other = protocol(draws), protocol(draws, human_post=HULL)
    human, data = teachers_of(other.study)
    assert (human.kind, data.kind) == ("human", "data")
    changed, kept = [], []
    for one in (plain, other):
        mixed = full_run(one, "mixed", "test_byobnet", Setting(0.1), 0)
        ceiling = full_run(one, "ceiling", "test_byobnet", Setting(0.1), 0)
        baseline = annotated_run(one, "test_byobnet", Setting(0.1), 0)
        changed.append([baseline, ceiling, mixed, *chain(one)])
        kept.append(
            [
                full_run(one, "baseline2", "test_byobnet", Setting(1.0), 0),
                full_run(one, "centre", "test_byobnet", Setting(0.1), 0),
                # It never sees a human map.
                *student_run(one, data, "test_byobnet", Setting(0.1), 0),
            ]
        )
        assert chain(one)[0].id == baseline.id  # a Baseline 1 is a Teacher still
        assert arm(chain(one)[0]).role == "teacher"
    assert not {step.id for step in changed[0]} & {step.id for step in changed[1]}
    assert [step.id for step in kept[0]] == [step.id for step in kept[1]]
    for step in changed[1][:3]:
        assert step.config is not None
        assert step.config.human_post.shape == "hull"
    student = changed[1][-1].config
    assert student is not None
    assert student.human_post.shape == "map"  # no human map guides it


@pytest.mark.parametrize("generations", [1, 2])
def test_kept_human_maps_are_changed_as_the_variant_says(draws: Path, generations: int) -> None:
    one = protocol(draws)
    post = {"power": 2.0}
    steps = chain(one, human_maps="keep", post=post, human_post=HULL, generations=generations)
    for step in steps:
        if step.kind == "train":
            assert step.config is not None
            assert step.config.human_post.shape == "hull"
            assert step.config.post.power == (1 if step is steps[0] else 2)
    # A variant that changes its Teacher is no candidate of the study's own.
    assert arm(steps[0]).role == "member"
    assert arm(chain(one)[0]).role == "teacher"
    assert steps[0].id != chain(one)[0].id


def test_a_variant_of_a_study_may_leave_human_maps_as_they_are(draws: Path) -> None:
    plain, other = protocol(draws), protocol(draws, human_post=HULL)
    undone = chain(other, human_post={})
    assert [step.id for step in undone] == [step.id for step in chain(plain)]


def test_a_teacher_on_all_images_is_the_mixed_control(draws: Path) -> None:
    one = protocol(draws)
    teacher = chain(one, teacher_rows="all")[0]
    mixed = full_run(one, "mixed", "test_byobnet", Setting(0.1), 0)
    assert teacher.id == mixed.id
    assert mixed.config is not None
    workspace = one.workspaces.of(0)
    guided = workspace.human_maps_from(mixed.config) & workspace.manifest.map_mask
    everything = workspace.manifest.map_mask & workspace.manifest.train_mask
    assert 0 < guided.sum() < everything.sum()


def test_the_distilled_control_has_the_teachers_labels_and_no_maps(draws: Path) -> None:
    one = protocol(draws)
    teacher = teachers_of(one.study)[0]
    steps = control_run(one, "distilled", teacher, "test_byobnet", Setting(0.1), 0)
    run = steps[-1].config
    assert run is not None
    assert not run.guided
    assert run.soft_labels is not None
    assert run.soft_labels.weight == pytest.approx(0.9)  # α is what the labels' own term weighs
    assert run.soft_labels.path == one.maps_folder(chain(one)[1].id)


def test_shuffled_human_maps_are_those_of_the_ceiling(draws: Path) -> None:
    one = protocol(draws)
    ceiling, control = (
        full_run(one, role, "test_byobnet", Setting(0.1), 1).config
        for role in ("ceiling", "shuffled_human")
    )
    assert ceiling is not None
    assert control is not None
    assert control.maps.shuffle_seed == 1
    assert control.model_copy(update={"maps": ceiling.maps}) == ceiling
    seeds = [
        full_run(one, "shuffled_human", "test_byobnet", Setting(0.1), seed).id for seed in (0, 1)
    ]
    assert seeds[0] != seeds[1]


def test_maps_of_principal_components_need_no_annotation(draws: Path) -> None:
    plain, other = protocol(draws), protocol(draws, annotated=0.25, pca_components=7)
    same = replace(other, study=other.study.model_copy(update={"pca_components": 5}))
    ids = [full_run(one, "pca", "test_byobnet", Setting(0.1), 0).id for one in (plain, other, same)]
    assert ids[0] == ids[2] != ids[1]


def test_more_components_than_images_are_refused(draws: Path) -> None:
    one = protocol(draws, pca_components=100)
    message = r"controls: pca: \d+ training images have fewer than 100 principal comp.*use at"
    with pytest.raises(InputError, match=message) as caught:
        check_study(one.study, one.workspaces)
    assert "\n" not in str(caught.value)
    check_study(protocol(draws, pca_components=100, controls=[]).study, one.workspaces)


@pytest.mark.parametrize("controls_alpha", ["own", "student"])
def test_the_masked_control_sees_the_marked_regions_alone(draws: Path, controls_alpha: str) -> None:
    one = protocol(
        draws,
        controls=["masked"],
        controls_alpha=controls_alpha,
        guide_classes=["forged"],
        mapper=True,
        alphas=[0.5, 0.1],
    )
    teacher = next(teacher for teacher in teachers_of(one.study) if teacher.kind == "mapper")
    steps = control_run(one, "masked", teacher, "test_byobnet", Setting(0.1), 1)
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
    plan = Plan(one)
    plan.add(stage_two(plan, teacher))
    arms = {member.arm for member in plan.members_of("masked")}
    later = variants_and_tests(plan, teacher, "test_byobnet", Setting(0.1))
    arms |= {arm(step) for step in later if step.kind == "train" and arm(step).role == "masked"}
    assert arms == {Arm("masked", "test_byobnet", 1.0, str(teacher))}


def test_an_outline_leaves_no_trace_and_covers_variants(draws: Path) -> None:
    one = protocol(draws, variants={"own": {"human_maps": "keep"}})
    plan = Plan(one)
    first, later = outline(plan)
    assert not plan.members
    assert not plan.steps
    titles = [step.title for step in [*first, *later]]
    assert sum("variant own" in title and title.startswith("train") for title in titles) == 2
    for control in ("shuffled", "centre", "pca", "distilled", "mixed"):
        assert sum(f"train {control}" in title for title in titles) == 2


CONTROLS = ("shuffled", "centre", "pca", "shuffled_human", "distilled", "mixed")


@pytest.mark.parametrize("controls_alpha", ["own", "student"])
def test_a_control_has_the_students_grid_and_a_choice_of_its_own(
    draws: Path, controls_alpha: str
) -> None:
    grid = [0.9, 0.5, 0.1]
    words = {"alphas": grid, "controls": CONTROLS, "controls_alpha": controls_alpha}
    plan = Plan(protocol(draws, **words))
    winner = teachers_of(plan.protocol.study)[0]
    steps = stage_two(plan, winner)
    trainings = [step.work for step in steps if isinstance(step.work, Train)]
    own = controls_alpha == "own"
    for role in ("student", *CONTROLS):
        trained = {
            (work.arm.alpha, work.config.seed) for work in trainings if work.arm.role == role
        }
        expected = {(alpha, seed) for alpha in grid for seed in (0, 1)}
        assert trained == (expected if own or role == "student" else set()), role
    selections = [step for step in steps if step.kind == "select"]
    assert len(selections) == (7 if own else 1)
    runs = {step.id for step in steps if step.kind == "train"}
    for step in selections:
        needed = [need for need in step.needs if need in runs]
        assert len(set(needed)) == 6  # every α and seed of its role
    student = selections[0].id
    # Test sets stay closed until the Students are chosen.
    assert all(student in step.needs for step in selections[1:])
    later = variants_and_tests(plan, winner, "test_byobnet", Setting(0.5))
    for role in CONTROLS:
        trained = [step for step in later if step.title.startswith(f"train {role} ")]
        assert len(trained) == (0 if own else 2)
        assert all("α 0.5" in step.title for step in trained)
    titles = [step.title for step in {step.id: step for step in steps}.values()]
    assert len(titles) == len(set(titles))


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


def test_a_study_names_what_is_wrong_with_its_variants(draws: Path) -> None:
    with pytest.raises(ProblemsError, match=r"variants\.many: trust: agreement"):
        protocol(draws, variants={"many": {"trust": "agreement"}})
    one = protocol(draws, variants={"few": {"guide_classes": ["nobody"]}})
    with pytest.raises(InputError, match=r"variants\.few\.guide_classes: \['nobody'\]"):
        check_study(one.study, one.workspaces)


def test_the_members_of_a_later_generation_wait_for_its_maps_alone(draws: Path) -> None:
    """They are trained at the same time."""
    steps = chain(protocol(draws), committee=2, generations=2)
    committees = [step for step in steps if step.kind == "committee"]
    trained = [step for step in steps if isinstance(step.work, Train)]
    later = [step for step in trained if arm(step).role == "generation"]
    assert len(later) == 2
    assert {step.needs for step in later} == {(committees[0].id,)}
