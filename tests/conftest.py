"""What all tests share: each has a cache folder of its own, hubs are never asked."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.fast_process import make_fast
from tests.forked import fork_xdist_workers, start_server
from tests.made_once import made_once, shared_folder

if TYPE_CHECKING:
    from tests.calibrated import Calibrated
    from tests.image_files import ImageFiles

# A machine that is busy with something else must not fail a test.
settings.register_profile("no deadline", deadline=None, max_examples=40)
settings.load_profile("no deadline")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

# Importing torch and collecting the tests make a million objects that stay; see `bulk_import`.
gc.disable()

make_fast()

SHARED = Path(__file__).resolve().parents[2] / "shared"

# What `make quick` leaves out, in the order in which files are started: what begins last should be
# short. Written by tests/slow_tests.py.
SLOW = tuple(Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines())


# What the emulated card leaves out and `make gpu` runs: more networks and settings of one property.
ON_A_GPU = (
    "gpu/test_training.py::test_two_trainings_are_one_to_the_bit",
    "gpu/test_training.py::test_half_precision_is_near[16",
    "gpu/test_training.py::test_a_run_goes_on_where_another_device_left_it[device-device",
    "gpu/test_training.py::test_a_run_goes_on_where_another_device_left_it[cpu-device",
    "gpu/test_training.py::test_a_guided_step_of_the_papers_backbones",
    *(
        f"gpu/test_training.py::test_a_training_is_that_of_the_cpu[{name}"
        for name in ("cam", "cyborg", "decision", "gradcam", "outside")
    ),
    *(
        f"gpu/test_augmentation.py::test_images_are_changed_as_on_the_cpu[outside-{name}"
        for name in ("mean", "noise")
    ),
    *(
        f"gpu/test_predictor.py::test_maps_are_those_of_the_cpu[{name}"
        for name in ("decision", "gradcam", "predicted", "rise")
    ),
    *(
        f"gpu/test_predictor.py::test_scores_and_maps_are_those_of_the_cpu[{name}"
        for name in ("gradcam", "gray", "letterbox", "sigmoid", "three")
    ),
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out whole files of `SLOW` unread where slow tests are not wanted: they import much."""
    if not config.option.markexpr.startswith("not slow"):
        return None
    here = Path(__file__).parent
    return True if collection_path in {here / name for name in SLOW} else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of `SLOW` and `ON_A_GPU`, and put the files of `SLOW` first."""
    here = Path(__file__).parent
    files = {name.split("::")[0]: at for at, name in reversed(list(enumerate(SLOW)))}
    slow = frozenset(SLOW)

    def place(item: pytest.Item) -> int:
        if not item.path.is_relative_to(here):  # a docstring's example
            return len(SLOW)
        file = item.path.relative_to(here).as_posix()
        if file in slow or f"{file}::{item.name}" in slow:
            item.add_marker(pytest.mark.slow)
        if f"{file}::{item.name}".startswith(ON_A_GPU):
            item.add_marker(pytest.mark.on_a_gpu)
        return files.get(file, len(SLOW))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but not among what the collection of the tests has made."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Fork the workers of xdist, of a process that has imported what they collect."""
    here = Path(__file__).parent
    asked = [Path(one.split("::")[0]).resolve() for one in config.args]
    files = (
        one.relative_to(here.parent)
        for one in sorted(here.rglob("test_*.py"))
        if any(map(one.is_relative_to, asked)) and not pytest_ignore_collect(one, config)
    )
    if sys.platform == "linux":
        fork_xdist_workers(".".join(file.with_suffix("").parts) for file in files)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Fork the server of processes, before a test changes anything; a controller has no tests."""
    if session.items and not session.config.option.collectonly:
        start_server()


@pytest.fixture(scope="session", autouse=True)
def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with shared_folder(tmp_path_factory):
        yield


@pytest.fixture(scope="session")
def _cache_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("caches")
    return (str(folder / str(number)) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_cache(_cache_folders: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is made when it is used; most tests need none."""
    monkeypatch.setenv("PRECEPTOR_CACHE", next(_cache_folders))


@pytest.fixture(scope="session")
def models() -> dict[str, Path]:
    """Model folders by what is special about them, made once."""
    from tests.model_folders import write_model_folders

    return made_once("models", write_model_folders)[1]


@pytest.fixture(scope="session")
def calibrated() -> Calibrated:
    """Calibrated model whose calibration is known, made once."""
    from tests.calibrated import make_calibrated

    return made_once("calibrated", make_calibrated)[1]


@pytest.fixture(scope="session")
def image_files() -> ImageFiles:
    """Image files of all kinds, good and bad, made once."""
    from tests.image_files import write_image_files

    return made_once("images", lambda folder: write_image_files(folder / "all"))[1]


@pytest.fixture(scope="session")
def magnetic_tile() -> Path:
    """The folder of the magnetic tile data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("MAGNETIC_TILE", SHARED / "data" / "magnetic_tile"))
    if not (folder / "manifest.csv").is_file():
        pytest.skip("the magnetic tile data is not here; set MAGNETIC_TILE to its folder")
    return folder
