"""What all tests share: each has a cache folder of its own, hubs are never asked."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.fast_process import make_fast
from tests.made_once import made_once, shared_folder

if TYPE_CHECKING:
    from tests.calibrated import Calibrated
    from tests.image_files import ImageFiles

# A machine that is busy with something else must not fail a test.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Importing torch and collecting the tests make a million objects that stay; see `bulk_import`.
gc.disable()

make_fast()

SHARED = Path(__file__).resolve().parents[2] / "shared"

# What `make quick` leaves out, in the order in which files are started: what begins last should be
# short. Written by tests/slow_tests.py.
SLOW = tuple(Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines())


# What `make test` leaves out and `make exhaustive` runs: the same property with more backbones or
# settings, of which one of each kind stays. No property may be tested here alone.
EXHAUSTIVE = (
    # Stays: a process in which torch cannot be imported.
    "deploy/test_exported_files.py::test_an_environment_without_torch_runs_a_file_with_its_map",
    # Stays: the same block with a small network.
    "test_docs.py::test_python_of_the_documents_runs[README.md 1",
    # Stay: an isotonic calibration in an exported file, and the formulas of both; the distance by
    # Gaussians in one.
    "deploy/test_export.py::test_the_calibration_is_part_of_the_export[temperature",
    "deploy/test_exported_files.py::test_unfamiliar_images_are_flagged_without_the_reference[energy",
    # Stays: the isotonic calibration, whose scores have ties.
    "deploy/test_exported_files.py::test_calibration_keeps_decisions_of_scores_equal_to_a_threshold[temp",
    # Stay: trainings, maps and predictions equal to those of the CPU, one of each kind.
    "gpu/test_training.py::test_two_trainings_are_one_to_the_bit",
    "gpu/test_training.py::test_half_precision_is_near[16",
    "gpu/test_training.py::test_a_run_goes_on_where_another_device_left_it[device-device",
    "gpu/test_predictor.py::test_maps_are_those_of_the_cpu[rise",
    *(
        f"gpu/test_predictor.py::test_scores_and_maps_are_those_of_the_cpu[{name}"
        for name in ("gray", "letterbox", "sigmoid", "three")
    ),
    # Stays: a section that fails.
    "benchmark/test_gpu.py::test_sections_that_are_there_are_kept",
    # Stay: the same trainings of a small network through CAM, and of a transformer.
    "gpu/test_training.py::test_a_guided_step_of_the_papers_backbones",
    *(
        f"gpu/test_training.py::test_a_training_is_that_of_the_cpu[{name}"
        for name in ("cyborg", "decision", "gradcam", "outside")
    ),
    # Stay: maps of a small network and of a transformer.
    *(
        f"gpu/test_predictor.py::test_maps_are_those_of_the_cpu[{name}"
        for name in ("decision", "predicted")
    ),
    "gpu/test_predictor.py::test_scores_and_maps_are_those_of_the_cpu[gradcam",
    # Stays: a first study.
    *(
        f"docs/test_tutorials.py::test_its_commands_succeed[{name}"
        for name in ("cluster", "import-annotations", "mark-your-images", "teacher-to-deployment")
    ),
    # Stay: two processes on one store, and the commands that the files name.
    "test_environments.py::test_jobs_of_an_array_share_the_steps",
    # Stay: a study on a cluster, a node and a head that die, a step that hangs.
    "execution/test_ray.py::test_annotation_on_a_cluster_leaves_the_store_of_one_process",
    "execution/test_ray.py::test_on_gpus_a_process_does_one_step_and_ends",
    # Stays: the wide window.
    "report/test_browser.py::test_no_rule_of_accessibility_is_broken[390",
    # Stay: the same without the seconds in which each worker imports torch.
    "test_driver.py::test_a_worker_that_cannot_start_is_told_at_once[True",
    # Stays: maps of the predicted class, which need the class first.
    "inference/test_annotate.py::test_a_store_of_rise_is_rise_image_by_image[label",
    # Stay: each estimator with one spread of the scores.
    "saliency/test_rise_error.py::test_the_error_is_that_of_the_map[1.0-published",
    "saliency/test_rise_error.py::test_the_error_is_that_of_the_map[3.0-default",
    "saliency/test_rise.py::test_both_estimators_converge_to_the_enumerated_map[logit-2",
    "saliency/test_rise.py::test_both_estimators_converge_to_the_enumerated_map[probability-3",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out whole files of `SLOW` unread where slow tests are not wanted: they import much."""
    if not config.option.markexpr.startswith("not slow"):
        return None
    here = Path(__file__).parent
    return True if collection_path in {here / name for name in SLOW} else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of `SLOW` and `EXHAUSTIVE`, and put the files of `SLOW` first."""
    here = Path(__file__).parent
    files = {name.split("::")[0]: at for at, name in reversed(list(enumerate(SLOW)))}
    slow = frozenset(SLOW)

    def place(item: pytest.Item) -> int:
        if not item.path.is_relative_to(here):  # a docstring's example
            return len(SLOW)
        file = item.path.relative_to(here).as_posix()
        if file in slow or f"{file}::{item.name}" in slow:
            item.add_marker(pytest.mark.slow)
        if f"{file}::{item.name}".startswith(EXHAUSTIVE):
            item.add_marker(pytest.mark.exhaustive)
        return files.get(file, len(SLOW))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but not among what the collection of the tests has made."""
    gc.freeze()
    gc.enable()


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


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """The folder of ImageNet weight files; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("WEIGHTS", SHARED / "weights"))
    if not (folder / "mobilenetv2_100.safetensors").is_file():
        pytest.skip("the ImageNet weight files are not here; set WEIGHTS to their folder")
    return folder
