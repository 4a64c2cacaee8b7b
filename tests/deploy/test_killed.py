"""`preceptor predict` that is killed: the same command goes on, to the same bytes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.killed import AT, killed_command
from tests.forked import run

DEVICE = ("--device", "cpu", "--batch-size", "4")


@pytest.mark.parametrize(("suffix", "maps"), [(".csv", "overlay"), (".parquet", "png")])
def test_a_killed_command_goes_on_to_the_same_bytes(
    models: dict[str, Path], folder: Path, suffix: str, maps: str
) -> None:
    names = "".join(f"scans/{file.name}\n" for file in sorted((folder / "scans").iterdir()))
    (folder / "list.txt").write_text(2 * names)

    def predict(out: str, at: int = -1) -> tuple[int, str]:
        arguments = ["predict", models["plain"], "-", "--out", out, "--maps", maps, *DEVICE]
        with (folder / "list.txt").open() as stream:
            done = run(killed_command, arguments, stdin=stream, cwd=folder,
                       env=os.environ | {AT: str(at)})  # fmt: skip
        return done.returncode, done.stderr

    for name in ("whole", "again"):
        (folder / name).mkdir()
    code, _ = predict(f"whole/a{suffix}")
    assert code == 1
    kills = 0
    rows = folder / "again" / f".a{suffix}.partial" / "rows.jsonl"
    for at in (0, 9, 23, 37, 12, -1):
        code, told = predict(f"again/a{suffix}", at)
        if rows.exists() and at > 9:  # half a row of half a batch
            os.truncate(rows, rows.stat().st_size - 7)
        assert code in (-signal.SIGKILL, 1), told
        if code == 1:
            break
        kills += 1
    assert code == 1
    assert kills >= 3

    def content(name: str) -> dict[str, bytes]:
        files = [file for file in (folder / name).rglob("*") if file.is_file()]
        return {
            str(file.relative_to(folder / name)): file.read_bytes()
            for file in files
            if not file.name.startswith(".")  # of a killed writer
        }

    whole, again = content("whole"), content("again")
    assert whole.keys() == again.keys()
    assert {name for name in whole if whole[name] != again[name]} == set()
    assert not rows.parent.exists()


def test_an_unfinished_output_is_continued_only_as_it_was_begun(
    models: dict[str, Path], folder: Path
) -> None:
    def predict(*more: str, model: str = "plain", lines: str = "scans/b color.png\n" * 12) -> Any:
        (folder / "list.txt").write_text(lines)
        with (folder / "list.txt").open() as stream:
            arguments = ["predict", models[model], "-", "--out", "a.csv", *DEVICE, *more]
            return run(killed_command, arguments, stdin=stream, cwd=folder,
                       env=os.environ | {AT: "13"})  # fmt: skip

    assert predict().returncode == -signal.SIGKILL
    rows = (folder / ".a.csv.partial" / "rows.jsonl").read_text().splitlines()
    assert len(rows) > 4
    for done, expected in (
        (predict("--threshold", "0.2"), "begun with another model or other options"),
        (predict(model="sigmoid"), "begun with another model or other options"),
        (predict(lines="scans/a color.jpg\n" * 12), "the images are not those of the interrupted"),
        (predict(lines="scans/b color.png\n" * 2), "the images are not those of the interrupted"),
    ):
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr
        assert len(done.stderr.splitlines()) == 1
