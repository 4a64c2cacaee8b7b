"""Bad manifests, images and maps: exit code 2, one message, nothing hidden."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import assert_refused, here, in_fork

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
    "binary": (content(bytes(range(256)) * 4), ["the file is not UTF-8 text"], 1),
    "a picture": (content(b"\x89PNG\r\n\x1a\n\0\0"), ["the file is not UTF-8 text"], 1),
    "utf-16": (content("\n".join(SOUND).encode("utf-16")), ["not UTF-8 text"], 1),
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
        ["column 'path' is missing; add it", "column 'label' is missing; add it"],
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
    "no train, val": (only("test"), ["no row has a train split", "no row has a val split"], 2),
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
