"""Two studies that share a store: each step is done once, whoever dies or sleeps."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from preceptor.config.files import load_config
from preceptor.study.config import StudyConfig
from preceptor.utils.leases import lease
from tests.datasets import squares
from tests.forked import Forked, serial_command
from tests.studies import SETTINGS, run_serially, same_tables


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    squares(folder / "data")
    target = folder / "study.yaml"
    values = SETTINGS | {"manifest": "data/manifest.csv", "controls": [], "ceiling": False}
    target.write_text(yaml.safe_dump(values))
    return target


@pytest.fixture(scope="module")
def alone(file: Path) -> Path:
    out = file.parent / "alone"
    assert not run_serially(load_config(file, StudyConfig), out).failed
    return out


def in_store(file: Path, store: Path) -> Path:
    """The same study with its results in a store."""
    target = store.parent / "in-store.yaml"
    values = yaml.safe_load(file.read_text()) | {"store": str(store)}
    values["manifest"] = str(file.parent / "data" / "manifest.csv")
    target.write_text(yaml.safe_dump(values))
    return target


def started(file: Path, out: Path, hold: tuple[str, Path] | None = None) -> Forked:
    """The study as a process, which does the steps itself."""
    arguments = ["study", file, "--out", out]
    return Forked(serial_command, arguments, hold=hold, stdout=subprocess.PIPE)


def computed(text: str) -> list[str]:
    """The steps that a study's lines say it has done."""
    return re.findall(r"^\[\d+/\d+\] (.*): \d+ s; ", text, re.MULTILINE)


def up_to_a_step(process: Forked) -> str:
    """What a study says until it has done a step."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("["):
            break
    return said


def one_run(alone: Path) -> str:
    """A run without which several steps can be done, but not the study."""
    records = (json.loads(one.read_text()) for one in sorted(alone.glob("store/runs/*/run.json")))
    return next(
        str(one["id"])
        for one in records
        if "baseline2" not in one["id"]
        and one["config"]["rows"] == "all"
        and one["config"]["maps"]["kind"] == "none"
    )


def test_two_at_once_do_each_step_once(file: Path, alone: Path, tmp_path: Path) -> None:
    """Each waits after its first step, until the other one has done one as well."""
    shared, go, said = in_store(file, tmp_path / "store"), tmp_path / "go", []
    with contextlib.ExitStack() as stack:
        processes = []
        for name in ("one", "two"):
            process = stack.enter_context(started(shared, tmp_path / name, ("[", go)))
            said.append(up_to_a_step(process))
            processes.append(process)
        go.touch()
        for at, process in enumerate(processes):
            assert process.stdout is not None
            said[at] += process.stdout.read()
    lines = [computed(text) for text in said]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(lines), "both took part"
    assert not set(lines[0]) & set(lines[1])
    assert len(lines[0]) + len(lines[1]) == len(list((tmp_path / "store").glob("*/*/run.json")))
    for name in ("one", "two"):
        same_tables(tmp_path / name, alone)
    assert not list((tmp_path / "store").glob("*/.*lease*"))


def test_the_other_takes_over_from_a_killed_one(file: Path, alone: Path, tmp_path: Path) -> None:
    """The first one cannot end before it is killed, since this process holds one of its steps."""
    shared = in_store(file, tmp_path / "store")
    with (
        lease(tmp_path / "store" / "runs" / one_run(alone)),
        started(shared, tmp_path / "one") as first,
    ):
        up_to_a_step(first)
        second = started(shared, tmp_path / "two")
        first.send_signal(signal.SIGKILL)
    text, _ = second.communicate()
    assert second.returncode == 0
    assert computed(text)
    same_tables(tmp_path / "two", alone)
