"""Paths in configs: relative ones start from the config's file, wherever a field has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preceptor.config.files import parse_config
from preceptor.config.run import RunConfig
from preceptor.study.config import StudyConfig

FOLDER = Path("/a/folder")


def study(**values: Any) -> StudyConfig:
    given = {"manifest": "m.csv", "teachers": ["t"], "students": ["s"]} | values
    return parse_config(given, StudyConfig, base=FOLDER)


def test_every_path_of_a_study_starts_from_its_file() -> None:
    found = study(store="../store", maps={"kind": "maps/one", "path": "/two"})
    assert (found.manifest, found.store) == (FOLDER / "m.csv", Path("/a/store"))
    assert found.maps == {"kind": FOLDER / "maps/one", "path": Path("/two")}
    of = study(manifest=None, domains={"a": {"manifest": "a.csv"}}).domains["a"]
    assert of.manifest == FOLDER / "a.csv"


def test_a_path_in_python_starts_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = StudyConfig(manifest=Path("m.csv"), teachers=["t"], students=["s"])
    assert made.manifest == Path.cwd() / "m.csv"
    monkeypatch.chdir(tmp_path)
    assert made.manifest != Path.cwd() / "m.csv"


@pytest.mark.parametrize("word", ["hub", "none"])
def test_weights_are_a_word_or_a_file(word: str) -> None:
    assert study(weights=word).weights == word
    assert study(weights="w.safetensors").weights == "/a/folder/w.safetensors"
    several = study(weights={"t": word, "s": "w.safetensors"})
    assert several.weights == {"t": word, "s": "/a/folder/w.safetensors"}


def test_every_path_of_a_run_starts_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    values = {
        "manifest": "~/m.csv",
        "backbone": "b",
        "weights": "w.safetensors",
        "maps": {"kind": "store", "path": "~nobody-here/maps"},
    }
    found = parse_config(values, RunConfig, base=FOLDER)
    assert (found.manifest, found.weights) == (Path("/home/me/m.csv"), "/a/folder/w.safetensors")
    assert found.maps.path == FOLDER / "~nobody-here/maps"
