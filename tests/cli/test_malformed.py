"""Bad manifests, images, maps, configs and requests: exit code 2, one message, nothing hidden."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from preceptor.cli.main import reported_errors
from tests.commands import assert_refused, flags, here, in_fork
from tests.datasets import squares

SOUND = [
    "path,label,split,saliency,annotated,group,map_weight,sample_weight",
    "a.png,fake,train,ma.png,1,p1,1,1",
    "b.png,real,train,,1,p2,,",
    "c.png,fake,val,mc.png,1,p3,,",
    "d.png,real,val,,,p4,,",
    "e.png,fake,test,,,p5,,",
    "f.png,real,test-unseen,,,p6,,",
]


def picture(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    channels = (3,) if mode == "RGB" else ()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels))
    Image.fromarray(noise.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    for name in "abcdef":
        picture(folder / f"{name}.png")
    for name in ("ma", "mc"):
        picture(folder / f"{name}.png", (20, 15), "L")
    (folder / "m.csv").write_text("\n".join(SOUND) + "\n")
    assert here("data", "check", folder / "m.csv").code == 0
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


Spoil = Callable[[Path], None]


def lines(*changed: tuple[int, str]) -> Spoil:
    """Replace lines of the sound manifest, numbered as an editor does; later ones are added."""

    def spoil(folder: Path) -> None:
        rows = dict(enumerate(SOUND, start=1)) | dict(changed)
        (folder / "m.csv").write_text("\n".join(rows[key] for key in sorted(rows)) + "\n")

    return spoil


def content(data: bytes, name: str = "m.csv") -> Spoil:
    return lambda folder: (folder / name).write_bytes(data) and None


def without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return spoil


def only(*splits: str) -> Spoil:
    """Keep the rows of these splits."""

    def spoil(folder: Path) -> None:
        kept = [row for row in SOUND[1:] if row.split(",")[2].split("-")[0] in splits]
        (folder / "m.csv").write_text("\n".join([SOUND[0], *kept]) + "\n")

    return spoil


def same_label(folder: Path) -> None:
    (folder / "m.csv").write_text("\n".join(SOUND).replace("real", "fake") + "\n")


def wide_map(folder: Path) -> None:
    picture(folder / "ma.png", (40, 15), "L")


def everything(folder: Path) -> None:
    """One manifest in which nearly every row is wrong in its own way."""
    cut("b.png")(folder)
    without("mc.png")(folder)
    changes = (
        (2, "a.png,fake,train,ma.png,1,p1,-1,1"),
        (5, "d.png,real,valid ation,,,p1,,"),
        (6, "e.png,fake,exam,,,p5,,nan"),
        (8, "nowhere.png,real,test,,perhaps,p7,,"),
        (9, "a.png,,train,,,,,"),
    )
    lines(*changes)(folder)


# What is wrong, how, what must be said, and how many problems there are.
MANIFESTS: dict[str, tuple[Spoil, list[str], int]] = {
    "missing file": (without("m.csv"), ["m.csv", "there is no such file"], 1),
    "empty": (content(b""), ["the file is empty", "write a header"], 1),
    "blank": (content(b"\n \n\n"), ["the file is empty"], 1),
    "header only": (content(SOUND[0].encode() + b"\n"), ["there are no rows"], 1),
    "binary": (content(bytes(range(256)) * 4), ["the file is binary"], 1),
    "a picture": (content(b"\x89PNG\r\n\x1a\n\0\0"), ["the file is binary"], 1),
    "utf-16": (content("\n".join(SOUND).encode("utf-16")), ["UTF-16"], 1),
    "latin-1": (
        content("\n".join([*SOUND[:2], "b.png,réel,train,,,,,"]).encode("latin-1")),
        ["row 3", "0xe9", "UTF-8"],
        1,
    ),
    "ragged": (
        lines((4, "c.png,fake"), (8, "g.png,real,train,,,,,,,")),
        ["row 4: has 2 cells where 8", "row 8: has 10 cells where 8"],
        2,
    ),
    "open quote": (lines((4, 'c.png,"fake,val,,,,,')), ["row 4", "quotation marks"], 1),
    "other column names": (
        lines((1, "image,class,split,saliency,annotated,group,map_weight,sample_weight")),
        ["'path' is missing; rename 'image'", "'label' is missing; rename 'class'"],
        2,
    ),
    "column twice": (
        lines((1, "path,label,split,saliency,annotated,group,path,sample_weight")),
        ["'path' occurs 2 times"],
        1,
    ),
    "unknown split": (
        lines((4, "c.png,fake,validate,,,,,"), (5, "d.png,real,dev,,,,,")),
        [
            f"row {row}: split {name!r} is unknown; did you mean val?"
            for row, name in ((4, "validate"), (5, "dev"))
        ],
        3,
    ),
    "no val": (only("train", "test"), ["no row has a val split", "data split"], 1),
    "no test": (only("train", "val"), ["no row has a test split"], 1),
    "no train, val": (
        only("test"),
        ["no row has a train split", "no row has a val split"],
        2,
    ),
    "single class": (same_label, ["every image has the label 'fake'", "a second class"], 1),
    "class not trained": (
        lines((5, "d.png,odd,val,,,,,")),
        ["row 5: label 'odd' (1 images) does not occur in the split train"],
        1,
    ),
    "group in two splits": (
        lines((5, "d.png,real,val,,,p1,,")),
        ["row 5: group 'p1' is in train (row 2) and in val (row 5)"],
        1,
    ),
    "file twice": (
        lines((8, "./a.png,fake,test,,,,,")),
        ["row 8: image './a.png' is listed already in row 2"],
        1,
    ),
    "bad weights": (
        lines((2, "a.png,fake,train,ma.png,1,p1,-1,0"), (3, "b.png,real,train,,1,p2,heavy,inf")),
        ["map_weight is '-1'", "sample_weight is '0'", "map_weight is 'heavy'", "'inf'"],
        4,
    ),
    "map but not annotated": (
        lines((2, "a.png,fake,train,ma.png,0,p1,,")),
        ["row 2: has a map but annotated 0"],
        1,
    ),
    "image missing": (without("b.png"), ["row 3: image 'b.png' does not exist"], 1),
    "image empty": (content(b"", "b.png"), ["row 3: image 'b.png'", "empty"], 1),
    "image truncated": (cut("b.png"), ["row 3: image 'b.png'", "truncated"], 1),
    "text as image": (content(b"not a picture\n", "b.png"), ["row 3: image 'b.png'"], 1),
    "folder as image": (
        lambda folder: ((folder / "b.png").unlink(), (folder / "b.png").mkdir())[1],
        ["row 3: image 'b.png'"],
        1,
    ),
    "map missing": (without("ma.png"), ["row 2: map 'ma.png' does not exist"], 1),
    "map of another aspect": (wide_map, ["row 2: map 'ma.png' is 40×15, its image 40×30"], 1),
    "map truncated": (cut("mc.png"), ["row 4: map 'mc.png'", "truncated"], 1),
    "everything at once": (
        everything,
        [
            "row 2: map_weight is '-1'",
            "row 3: image 'b.png'",
            "row 4: map 'mc.png' does not exist",
            "row 5: ",
            "row 6: split 'exam' is unknown",
            "row 6: sample_weight is 'nan'",
            "row 8: image 'nowhere.png' does not exist",
            "row 8: annotated is 'perhaps'",
            "row 9: label is empty",
            "row 9: image 'a.png' is listed already in row 2",
        ],
        10,
    ),
}
# Those also run as processes of their own, where nothing of the tests can help.
APART = ("binary", "everything at once")


@pytest.mark.parametrize("case", MANIFESTS)
def test_bad_manifests(case: str, folder: Path) -> None:
    spoil, expected, problems = MANIFESTS[case]
    spoil(folder)
    assert_refused(here("data", "check", folder / "m.csv"), expected, problems)


@pytest.mark.parametrize("case", APART)
def test_bad_manifests_as_processes(case: str, folder: Path) -> None:
    spoil, expected, problems = MANIFESTS[case]
    spoil(folder)
    assert_refused(in_fork("data", "check", "m.csv", cwd=folder), expected, problems)


def test_more_problems_than_anybody_reads(folder: Path) -> None:
    rows = [f"no-{number}.png,fake,train,,,,," for number in range(1_254)]
    (folder / "m.csv").write_text("\n".join([*SOUND, *rows]) + "\n")
    outcome = here("data", "check", folder / "m.csv")
    assert outcome.code == 2
    assert "1,254 problems" in outcome.err
    assert outcome.err.rstrip().endswith("and 1,234 more")


# Configs. Values of None take a key away.

RUN = {
    "manifest": "manifest.csv",
    "backbone": "test_byobnet",
    "positive": "marked",
    "training": {"input_size": 32, "epochs": 1, "batch_size": 10},
}
STUDY = {
    "manifest": "manifest.csv",
    "positive": "marked",
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "training": RUN["training"],
}


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
            "training.distance: value 'l3'; write l2, mse, l1, kl, dice",
            "training.epochs: value 'many'; write a whole number",
        ],
        5,
    ),
    "missing words": ({"backbone": None}, ["backbone: missing"], 1),
    "a class that is a number": ({"positive": 1}, ["positive: value 1", "in quotes: '1'"], 1),
    "steps without a number": (
        {"training": {"length": "steps"}},
        ["training: length is steps, and steps is not given"],
        1,
    ),
    "a number without steps": (
        {"training": {"steps": 100}},
        ["training: steps is given, and length is epochs; set length: steps"],
        1,
    ),
    "unknown backbone": (
        {"backbone": "test_byobnte"},
        ["backbone 'test_byobnte' is not known", "test_byobnet"],
        None,
    ),
    "a backbone with no exact map": (
        {"backbone": "pit_ti_224"},
        ["pit_ti_224"],
        None,
    ),
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
    "agreement of one Teacher": (
        {"trust": "agreement"},
        ["trust: agreement", "set committee to 2 or more"],
        1,
    ),
    "a variant with an unknown key": (
        {"variants": {"v": {"comittee": 3}}},
        ["variants.v.comittee", "unknown key"],
        1,
    ),
    "a variant's class": (
        {"variants": {"v": {"guide_classes": ["lesion"]}}},
        ["variants.v.guide_classes", "'lesion'"],
        None,
    ),
    "a committee and seeds from 1000": (
        {"committee": 2, "seeds": [1, 1000]},
        ["seeds", "below 1000"],
        None,
    ),
    "several contradictions, all told": (
        {"seeds": [1, 1], "probe": "resnet50", "weights": {"vgg11": "none"}},
        ["seeds has duplicate values", "probe resnet50", "missing for test_byobnet", "vgg11"],
        4,
    ),
    "one word where a list is": (
        {"teachers": "test_byobnet"},
        ["teachers: value 'test_byobnet'; write a list"],
        1,
    ),
    "seeds that are none": ({"seeds": "all"}, ["seeds: value 'all'; write a number"], 1),
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
        ("manifest: m.csv\ntraining:\n\tlr: 1", ["not YAML: line 3", "indent with spaces"]),
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "run.yaml"], ["alpha: value 2"]),
        (["study", "study.yaml", "--out", "x"], ["probe resnet50 is not"]),
    ],
)
def test_bad_requests_as_processes(arguments: list[str], expected: list[str], data: Path) -> None:
    (data / "run.yaml").write_text(yaml.safe_dump(RUN | {"alpha": 2}))
    (data / "study.yaml").write_text(yaml.safe_dump(STUDY | {"probe": "resnet50"}))
    problems = 1 if arguments[1].endswith(".yaml") else None
    assert_refused(in_fork(*arguments, cwd=data), expected, problems)


def test_requests_for_what_is_not_there(data: Path, tmp_path: Path) -> None:
    manifest = data / "manifest.csv"
    (data / "study.yaml").write_text(yaml.safe_dump(STUDY))
    study = data / "study.yaml"
    nowhere, out = tmp_path / "nowhere", tmp_path / "out"
    und = flags(train=nowhere, images=nowhere, heatmaps=nowhere, to=manifest)
    for arguments, expected in [
        (["evaluate", nowhere, manifest], "not a model folder"),
        (["annotate", nowhere, manifest, "--out", out], "not a model folder"),
        (["annotate", nowhere, manifest, "--out", out, "--method", "rise"], "not a model folder"),
        (["evaluate", nowhere, manifest, "--out", nowhere / "s.parquet"], "create it first"),
        (["report", nowhere], "not a study folder"),
        (["report", tmp_path], "not a study folder"),
        (["study", study], "--out"),
        (["study", "run"], "the study file is missing"),
        (["study", "plan"], "the study file is missing"),
        (["study", "plan", study, manifest], "give one study file"),
        (["study", "status", nowhere], "no study has been run here"),
        (["study", "run", study, manifest, "--out", out], "give one study file"),
        (["study", study, "--out", tmp_path / "study", "--jobs", "0"], "--jobs 0"),
        (["study", study, manifest, "--out", out], "give one study file"),
        (["study", study, "--out", manifest], "exists"),
        (["study", "init"], "the manifest is missing"),
        (["study", "init", manifest, "--to", nowhere / "s.yaml"], "create it first"),
        (["study", "init", manifest, "--to", study], "exists already"),
        (["study", "init", manifest, "--to", out, "--positive", "lesion"], "'lesion'"),
        (["data", "split", manifest, "--to", manifest], "exists already"),
        (["data", "split", manifest, "--to", nowhere / "m.csv"], "create it first"),
        (["data", "split", manifest, "--to", out, "--hold-out", "kind 0"], "SOURCE=SPLIT"),
        (["data", "import", "und", *und], "exists already"),
    ]:
        assert_refused(here(*arguments), [expected])
    assert not out.exists() or not any(out.iterdir())


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


def test_shares_and_sources_that_cannot_be(data: Path, tmp_path: Path) -> None:
    split = ["data", "split", data / "manifest.csv", "--to", tmp_path / "m.csv"]
    wrong = ["--train", "0.9", "--hold-out", "no-such=test-unseen", "--hold-out", "kind 0=exam"]
    expected = ["add up to 1.3", "'no-such'", "'exam'"]
    assert_refused(here(*split, *wrong), expected, 3)
    assert not (tmp_path / "m.csv").exists()
