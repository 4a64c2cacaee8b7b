"""Bad configs and requests: exit code 2, one message, nothing hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from preceptor.cli.main import reported_errors
from tests.commands import assert_refused, flags, here
from tests.datasets import SQUARES_RUN, SQUARES_STUDY, squares

# Configs. Values of None take a key away.

SMALL = {
    "manifest": "manifest.csv",
    "training": {"input_size": 32, "epochs": 1, "batch_size": 10},
}
RUN, STUDY = SQUARES_RUN | SMALL | {"backbone_args": {}}, SQUARES_STUDY | SMALL


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs") / "data"
    squares(folder, splits={"train": 8, "val": 4, "test": 4, "test-unseen": 4})
    return folder


def refuse(
    data: Path, kind: str, text: str, expected: list[str], problems: int | None, name: str
) -> None:
    file = data / f"{name}.yaml"
    file.write_text(text)
    store = data.parent / "runs"
    outcome = here(kind, file, "--out", store)
    assert_refused(outcome, expected, problems)
    assert not list(store.glob("**/run.json")), "nothing may have been trained"


# The run config's changes, what must be said, and how many problems there are.
RUNS: dict[str, tuple[dict[str, object], list[str], int | None]] = {
    "unknown key": ({"alhpa": 0.5}, ["alhpa: unknown key", "did you mean 'alpha'?"], 1),
    "word in the wrong place": ({"lr": 0.1}, ["lr: unknown key; it belongs under `training:`"], 1),
    "bad values, all told": (
        {"alpha": 7, "seed": -1, "training": {"lr": 0, "distance": "l3", "epochs": "many"}},
        [
            "alpha: value 7",
            "seed: value -1",
            "training.lr: value 0",
            "training.distance: value 'l3'; not one of l2, mse, l1, kl, dice",
            "training.epochs: value 'many'; write a whole number",
        ],
        5,
    ),
    "missing words": ({"backbone": None}, ["backbone: missing"], 1),
    "a class that is a number": ({"positive": 1}, ["positive: value 1; write a string"], 1),
    "steps without a number": (
        {"training": {"length": "steps"}},
        ["training: length is steps, and steps is not given"],
        1,
    ),
    "unknown backbone": (
        {"backbone": "test_byobnte"},
        ["backbone 'test_byobnte' is not known", "test_byobnet"],
        None,
    ),
    "a backbone with no exact map": ({"backbone": "pit_ti_224"}, ["pit_ti_224"], None),
    "weights that do not exist": (
        {"weights": "nowhere.safetensors"},
        ["nowhere.safetensors"],
        None,
    ),
    "positive is no class": ({"positive": "lesion"}, ["positive", "'lesion'", "'plain'"], None),
    "no positive": ({"positive": None}, ["positive", "'plain'", "'marked'"], None),
    "guide_classes is no class": (
        {"guide_classes": ["lesion"]},
        ["guide_classes", "'lesion'"],
        None,
    ),
    "maps that do not exist": (
        {"maps": {"kind": "store", "path": "nowhere"}},
        ["maps", "nowhere is not a folder"],
        None,
    ),
    "no manifest there": ({"manifest": "nowhere.csv"}, ["nowhere.csv", "no such file"], 1),
}
STUDIES: dict[str, tuple[dict[str, object], list[str], int | None]] = {
    "primary is no test set": ({"primary": "val"}, ["primary", "'val'", "'test-unseen'"], None),
    "positive is no class": ({"positive": "lesion"}, ["positive", "'lesion'"], None),
    "guide_classes is no class": (
        {"guide_classes": ["lesion"]},
        ["guide_classes", "'lesion'"],
        None,
    ),
    "a way of guiding with an unknown key": (
        {"guidances": {"v": {"distence": "l1"}}},
        ["guidances.v.distence", "unknown key"],
        1,
    ),
    "several contradictions, all told": (
        {"seeds": [1, 1], "weights": {"vgg11": "none"}},
        ["seeds has duplicate values", "missing for test_byobnet", "vgg11"],
        3,
    ),
    "one word where a list is": (
        {"teachers": "test_byobnet"},
        ["teachers: value 'test_byobnet'; write a list"],
        1,
    ),
    "seeds that are none": ({"seeds": "all"}, ["seeds: value 'all'; write a whole number"], 1),
    "weights that do not exist": (
        {"weights": "nowhere.safetensors"},
        ["weights", "nowhere.safetensors"],
        None,
    ),
    "maps that do not exist": ({"maps": {"other": "nowhere"}}, ["maps.other", "nowhere"], None),
    "unknown backbone": ({"students": ["resnet_50"]}, ["'resnet_50' is not known"], None),
}


@pytest.mark.parametrize("case", RUNS)
def test_bad_run_configs(case: str, data: Path) -> None:
    changes, expected, problems = RUNS[case]
    values = {key: value for key, value in (RUN | changes).items() if value is not None}
    refuse(data, "train", yaml.safe_dump(values), expected, problems, "run")


@pytest.mark.parametrize("case", STUDIES)
def test_bad_study_configs(case: str, data: Path) -> None:
    changes, expected, problems = STUDIES[case]
    values = {key: value for key, value in (STUDY | changes).items() if value is not None}
    refuse(data, "study", yaml.safe_dump(values), expected, problems, "study")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("manifest: [", ["not YAML", "line 1"]),
        ("manifest: m.csv\ntraining:\n\tlr: 1", ["not YAML: line 3", "cannot start any token"]),
        ("manifest: m.csv\nmanifest: n.csv", ["line 2: 'manifest' is given twice"]),
        ("", ["found nothing"]),
        ("- a\n- b", ["expected `key: value` lines, found list"]),
        (
            "manifest: ${NO_SUCH_FOLDER}/m.csv\nbackbone: ${NOR_THIS} # ${NO_MATTER}",
            ["${NOR_THIS}, ${NO_SUCH_FOLDER} not set in the environment"],
        ),
    ],
)
@pytest.mark.parametrize("kind", ["train", "study"])
def test_texts_that_are_no_config(text: str, expected: list[str], kind: str, data: Path) -> None:
    refuse(data, kind, text, expected, None, "text")


@pytest.mark.parametrize("kind", ["train", "study"])
def test_config_files_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    out = ("--out", tmp_path / "out")
    for name, reason in (
        ("no.yaml", "No such file"),
        ("binary.yaml", "not UTF-8"),
        (".", "directory"),
    ):
        assert_refused(here(kind, tmp_path / name, *out), ["config", reason])


def test_requests_for_what_is_not_there(data: Path, tmp_path: Path) -> None:
    manifest = data / "manifest.csv"
    (data / "study.yaml").write_text(yaml.safe_dump(STUDY))
    study = data / "study.yaml"
    nowhere, out = tmp_path / "nowhere", tmp_path / "out"
    out.mkdir()
    und = [nowhere, *flags(images=nowhere, heatmaps=nowhere, to=manifest)]
    for arguments, expected in [
        (["evaluate", nowhere, manifest], "not a model folder"),
        (["annotate", nowhere, manifest, "--out", out], "not a model folder"),
        (["annotate", nowhere, manifest, "--out", out, "--method", "rise"], "not a model folder"),
        (["evaluate", nowhere, manifest, "--out", nowhere / "s.parquet"], "create it first"),
        (["report", nowhere], "there is no such folder"),
        (["report", tmp_path], "not a study folder"),
        (["study", "status", nowhere], "no study has been started here"),
        (["study", study, "--out", manifest], "it is a file; name a folder"),
        (["study", "init", manifest, "--to", nowhere / "s.yaml"], "create it first"),
        (["study", "init", manifest, "--to", study], "exists already"),
        (["study", "init", manifest, "--to", out / "s.yml", "--positive", "lesion"], "'lesion'"),
        (["data", "split", manifest, "--to", manifest], "exists already"),
        (["data", "split", manifest, "--to", nowhere / "m.csv"], "create it first"),
        (["data", "split", manifest, "--to", out / "m.pq", "--hold-out", "kind 0"], "SOURCE=SPLIT"),
        (["data", "import", "und", *und], "exists already"),
    ]:
        assert_refused(here(*arguments), [expected])
    assert not any(out.iterdir())
    for command in (["study", study, "--out", tmp_path / "study"], ["demo", "--out", out / "d"]):
        none = here(*command, "--jobs", "0")
        assert none.code == 2
        assert "Invalid value for '--jobs'" in none.err


def test_an_output_whose_suffix_is_of_another_format_is_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    nowhere, model = tmp_path / "nowhere.csv", tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_text("{}")
    und = [nowhere, *flags(images=nowhere, heatmaps=nowhere)]
    table = ".csv, .parquet, .pq"
    for arguments, option, name, known in [
        (["data", "split", nowhere], "--to", "x.txt", table),
        (["data", "split", nowhere], "--to", "x", table),
        (["data", "import", "und", *und], "--to", "x.tsv", table),
        (["predict", nowhere, nowhere], "--out", "x.xlsx", ".csv"),
        (["evaluate", nowhere, nowhere], "--out", "x.csv", ".parquet, .pq"),
        (["export", model], "--out", "x.bin", ".onnx"),
        (["study", "init", nowhere], "--to", "x.csv", ".yaml, .yml"),
    ]:
        target = tmp_path / name
        told = here(*arguments, option, target)
        assert_refused(told, [f"{option} {target}: unknown format; name it {known}"])
        assert told.err.rstrip().endswith(known)


def test_a_seed_below_zero_is_refused(data: Path, tmp_path: Path) -> None:
    split = ["data", "split", data / "manifest.csv", "--to", tmp_path / "m.csv"]
    assert_refused(here(*split, "--seed", "-1"), ["seed is -1; write a whole number, 0 or more"])


def test_memory_that_runs_out_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, reported_errors():
        torch.empty(2**60)
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: out of memory; lower training.input_size")
    with pytest.raises(RuntimeError, match="another"), reported_errors():
        raise RuntimeError("another")
