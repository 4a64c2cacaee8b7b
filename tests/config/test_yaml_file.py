"""Configs: variables, unknown words and bad values, recipes, relative manifests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from preceptor.config.files import dump_config, load_config, parse_config
from preceptor.config.run import RunConfig
from preceptor.config.settings import Settings, plain_types
from preceptor.config.training import RECIPES, Augmentation, Training
from preceptor.errors import InputError, ProblemsError
from preceptor.study.config import StudyConfig

RUN = "manifest: data/m.csv\nbackbone: test_resnet\n"
STUDY = {"manifest": "m.csv", "teachers": ["t"], "students": ["a", "b"]}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(values: dict[str, Any], model: Any = RunConfig) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        parse_config(values, model)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"alpha": float("nan")}, "alpha"),
        ({"annotated": 1.5}, "annotated"),
        ({"rows": "some"}, "rows"),
        ({"training": {"length": "steps", "steps": 5, "epochs": 10}}, "fewer than the 10"),
        ({"training": {"in_chans": 2}}, "in_chans"),
        ({"maps": {"kind": "alien"}}, "maps.kind"),
        ({"maps": {"kind": "store"}}, "path is not given"),
    ],
)
def test_bad_values(values: dict[str, Any], problem: str) -> None:
    assert any(problem in text for text in problems({"manifest": "m", "backbone": "b"} | values))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("backbone_args: &a {x: *a}", "contain themselves; write them flat"),
        ("backbone_args: {x: .nan}", "line 3: .nan is not finite; write a finite number"),
        ("backbone_args: {x: [1, 1e400]}", "backbone_args.x.1: value inf; write a finite"),
        ("seed: 99999999999999999999", r"seed: value 9+; write a number below 2\^63"),
        (r'positive: "a\nb"', r"positive: value 'a\\nb' has a control character; remove it"),
        (r'positive: "\ud800"', r"positive: value '\\ud800' has a control character"),
        (r'maps: {kind: store, path: "a\0b"}', "maps.path: value .* has a control character"),
        (r'"a\nb": 1', r"'a\\nb': a control character; remove it"),
        ("training: {recipe: [1, 2]}", r"training.recipe: value \[1, 2\]; write"),
        ("maps: {kind: pca, shuffle_seed: 1}", "shuffle_seed permutes.*kind is pca; remove it"),
        ("annotated_seed: -1", "annotated_seed: value -1; it must be at least 0"),
        ("training: {input_size: 100000}", "training.input_size: value 100000; it must be at most"),
        ("training: {epochs: 4000000000}", "training.epochs: value 4000000000; it must be at most"),
        ("positive: 1.50", "positive: value 1.5; write a string; a number, yes and no need quotes"),
        ("positive: 010", "line 3: 010 is an ambiguous number"),
        (f"positive: {[1] * 500}", "positive: value .{,100}; write a string"),
    ],
)
def test_what_no_config_may_hold_is_told_in_one_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as error:
        load_config(write(tmp_path, RUN + text), RunConfig)
    told = str(error.value).split("\n")
    assert len(told) == 1 or f": {len(told) - 1} problem" in told[0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"annotated_per_seed": True}, "annotated_per_seed needs annotated, the number"),
        (
            {"recipe": "recommended", "training": {"recipe": "cyborg"}},
            "recipe: recommended and training.recipe are two; remove one",
        ),
        ({"guidances": {"a-b": {"alphas": "x"}}}, r"guidances\.a-b\.alphas: value 'x'"),
        ({"mapper": "x"}, "mapper: value 'x'"),
    ],
)
def test_bad_studies(values: dict[str, Any], problem: str) -> None:
    given = {"manifest": "m.csv", "teachers": ["t"], "students": ["s"]} | values
    with pytest.raises(InputError, match=problem):
        parse_config(given, StudyConfig)


@pytest.mark.parametrize("name", ["table.csv", "Tabelle März.PARQUET"])
def test_a_table_is_no_config(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("path,label\n")
    with pytest.raises(
        InputError, match="is a table of images; name a YAML file, which `preceptor"
    ):
        load_config(tmp_path / name, RunConfig)


def test_overrides_win(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, RUN + "seed: 3\n"), RunConfig, seed=5, alpha=0.25)
    assert (config.seed, config.alpha) == (5, 0.25)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fills_only_what_is_not_set(recipe: Any) -> None:
    plain = Training(recipe=recipe)
    for key, value in RECIPES[recipe].items():
        assert getattr(plain, key) == value
    own = {"lr": 0.1, "distance": "l2", "epochs": 3, "optimizer": "adamw", "cam_class": "label"}
    mixed = Training(recipe=recipe, **own)  # type: ignore[arg-type]
    for key, value in (RECIPES[recipe] | own).items():
        assert getattr(mixed, key) == value


def test_the_recipes_are_the_authors_code_and_the_paper() -> None:
    cyborg, paper = Training(recipe="cyborg"), Training(recipe="paper")
    assert (cyborg.distance, cyborg.cam_class) == ("mse", "predicted")
    assert (paper.distance, paper.cam_class) == ("l2", "label")
    for one in (cyborg, paper):
        assert (one.optimizer, one.lr, one.momentum, one.weight_decay) == ("sgd", 0.005, 0.9, 1e-6)
        assert one.schedule == "step"
        assert (one.length, one.epochs, one.batch_size) == ("epochs", 50, 20)
        assert (one.checkpoint, one.fit, one.augmentation) == (
            "best_accuracy",
            "squash",
            Augmentation(),
        )


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (RunConfig, {"manifest": "m", "backbone": "b", "training": {"recipe": "cyborg", "lr": 1}}),
        (RunConfig, {"manifest": "m", "backbone": "b", "annotated": 1, "guide_classes": ["x"]}),
        (StudyConfig, STUDY | {"alphas": [0.1], "weights": {"t": "hub", "a": "none", "b": "f"}}),
    ],
)
def test_a_dumped_config_reads_back_the_same(model: Any, values: dict[str, Any]) -> None:
    config = parse_config(values, model)
    assert parse_config(yaml.safe_load(dump_config(config)), model) == config


def test_annotated_one_is_an_image_and_one_point_zero_is_all() -> None:
    base = {"manifest": "m", "backbone": "b"}
    for value in (1, 1.0, 0.25, 40):
        got = parse_config(base | {"annotated": value}, RunConfig).annotated
        assert got == value
        assert type(got) is type(value)


@pytest.mark.parametrize(
    ("cam_class", "measured"),
    [("label", "label"), ("predicted", "label"), ("decision", "decision")],
)
def test_runs_with_and_without_guidance_are_measured_by_the_same_map(
    cam_class: str, measured: str
) -> None:
    base = {"manifest": "m.csv", "backbone": "b", "training": {"cam_class": cam_class}}
    for own in ({}, {"alpha": 1}, {"maps": {"kind": "none"}}):
        assert parse_config(base | own, RunConfig).guided_map == measured


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"controls": ["pca", "centre", "pca"]}, "controls has duplicate values"),
        ({"seeds": 2_000_000}, "2,000,000 is above the maximum of 1,000"),
        ({"alphas": [1.0]}, "alphas"),
        ({"alphas": []}, "alphas"),
        ({"students": []}, "students"),
        ({"weights": {"t": "hub"}}, "missing for a, b"),
        ({"weights": {"t": "hub", "a": "x", "b": "x", "z": "x"}}, "not used: z"),
        ({"backbone_args": {"z": {}}}, "not used: z"),
    ],
)
def test_studies_that_contradict_themselves(values: dict[str, Any], problem: str) -> None:
    assert any(problem in text for text in problems(STUDY | values, StudyConfig))


def test_study_defaults() -> None:
    study = parse_config(STUDY, StudyConfig)
    assert study.seed_list == (0, 1, 2)
    assert study.alpha_grid == (0.01, 0.05, 0.1, 0.25, 0.5, 0.9)
    assert study.probe_alpha == 0.1
    mse = parse_config(STUDY | {"training": {"distance": "mse"}}, StudyConfig)
    assert mse.alpha_grid == (0.01, 0.1, 0.5)
    for distance in ("l1", "kl", "dice"):
        one = parse_config(STUDY | {"training": {"distance": distance}}, StudyConfig)
        assert len(one.alpha_grid) == 6
        assert one.probe_alpha == 0.1
    assert parse_config(STUDY | {"alphas": [0.5, 0.9]}, StudyConfig).probe_alpha == 0.5


def numbers(model: type[Settings], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every word of a config that takes numbers and no truth values, with those above it."""
    for name, field in model.model_fields.items():
        kinds = set(plain_types(field.annotation))
        if kinds & {int, float} and bool not in kinds:
            yield *above, name
        for kind in kinds:
            if issubclass(kind, Settings) and not get_args(field.annotation):
                yield from numbers(kind, (*above, name))


def nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if path[1:] else value}


@pytest.mark.parametrize("value", [True, False, [True], [1, False]])
@pytest.mark.parametrize(
    ("model", "base"), [(RunConfig, {"manifest": "m", "backbone": "b"}), (StudyConfig, STUDY)]
)
def test_a_truth_value_is_never_a_number(
    model: type[Settings], base: dict[str, Any], value: Any
) -> None:
    words = list(numbers(model))
    assert len(words) > 15
    for path in words:
        (problem,) = problems(base | nested(path, value), model)
        assert problem.startswith(f"{'.'.join(path)}: value {value!r}; write "), problem


@pytest.mark.parametrize("seeds", [[-1, 2], [-1], -1, 0, [0, True], True])
def test_seeds_that_cannot_seed_are_refused(seeds: Any) -> None:
    (problem,) = problems(STUDY | {"seeds": seeds}, StudyConfig)
    assert problem.startswith(f"seeds: value {seeds!r}; ")
