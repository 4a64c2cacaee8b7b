"""The wheel: every file of the package is in it, those of the pages too, and nothing else."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "preceptor"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel as hatchling builds it, without the network."""
    (path,) = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_it_has_the_files_of_the_source_and_no_others(wheel: zipfile.ZipFile) -> None:
    wanted = {
        file.relative_to(ROOT / "src").as_posix()
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == wanted
    for name in packed:
        assert wheel.read(name) == (ROOT / "src" / name).read_bytes(), name


@pytest.mark.parametrize("folder", ["label/static", "report/templates"], ids=lambda one: one)
def test_it_has_the_files_of_the_pages(wheel: zipfile.ZipFile, folder: str) -> None:
    packed = [name for name in wheel.namelist() if name.startswith(f"preceptor/{folder}/")]
    assert len(packed) == sum(file.is_file() for file in (PACKAGE / folder).rglob("*"))
    assert {Path(name).suffix for name in packed} - {".py"}


def test_its_metadata_have_the_command_the_extras_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert (
        "preceptor = preceptor.cli.main:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    )
    metadata = wheel.read(f"{folder}/METADATA").decode()
    for extra in ("demo", "onnx", "ray", "web"):
        assert f"Provides-Extra: {extra}\n" in metadata
    licence = wheel.read(f"{folder}/licenses/LICENSE")
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert "preceptor/py.typed" in wheel.namelist()
