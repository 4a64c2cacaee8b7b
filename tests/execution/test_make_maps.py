"""Annotation in shards: the bits of one process, whoever does them, and nothing done twice."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.config.run import RiseSettings, RunConfig
from preceptor.config.training import Training
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.execution.make_maps import PARTIAL_FOLDER, annotate_in_shards
from preceptor.execution.perform import perform
from preceptor.inference.annotate import (
    Shard,
    annotate,
    model_digest,
)
from preceptor.maps.store import MapStore, read_store
from preceptor.models.build import load_model, save_model, with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import Pool
from preceptor.saliency.maps import normalize
from preceptor.saliency.rise import RiseState, write_state
from preceptor.study.steps import MakeMaps, Step
from preceptor.study.workspaces import Workspaces
from preceptor.training.run import train
from preceptor.utils.leases import lease
from tests.commands import flags
from tests.datasets import squares
from tests.forked import Forked, command, run, watched_command

RISE = RiseSettings(max_masks=128, tolerance=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marking")
    return squares(folder, splits={"train": 70, "val": 8, "test": 4})


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    training = Training(input_size=32, epochs=1, batch_size=16)
    config = RunConfig(
        manifest=data,
        backbone="test_byobnet",
        positive="marked",
        training=training,
        backbone_args={"output_stride": 8},
    )
    return train(config, data.parent / "runs").folder / "model"


@pytest.fixture(scope="module")
def whole(data: Path, model: Path) -> MapStore:
    """By RISE, in this process and in one piece."""
    return annotate(
        loaded(model),
        Manifest.read(data),
        "rise",
        out=data.parent / "whole",
        splits="all",
        rise=RISE,
    )


def loaded(model: Path) -> GuidedModel:
    """A model as the workers have it."""
    torch.set_num_threads(1)
    return load_model(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def assert_same(one: MapStore, other: MapStore) -> None:
    assert one.info == other.info
    for name in ("paths", "maps", "classes", "scores", "probabilities", "error"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_processes_leave_the_store_of_one_piece(
    data: Path, model: Path, whole: MapStore, tmp_path: Path
) -> None:
    options = flags(method="rise", split="all", max_masks=128, tolerance=0.2, jobs=2)
    done = run(command, ["annotate", model, data, "--out", tmp_path, *options])
    assert done.returncode == 0, done.stderr
    assert_same(read_store(tmp_path), whole)
    assert not (tmp_path / PARTIAL_FOLDER).exists()


ONE_MORE = """\
import time
from pathlib import Path
from preceptor.execution import perform
make, begun = perform._make_maps, []
def one_more(*arguments):
    begun.append(1)
    while len(begun) > 1 and not Path({go!r}).exists():
        time.sleep(0.01)
    return make(*arguments)
perform._make_maps = one_more
"""
"""Lines with which a worker makes the maps of one shard, and of further ones when a file exists."""


def test_what_was_killed_goes_on_from_its_shards(
    data: Path, model: Path, whole: MapStore, tmp_path: Path
) -> None:
    out, go, hook = tmp_path / "maps", tmp_path / "go", tmp_path / "hook.py"
    hook.write_text(ONE_MORE.format(go=str(go)))
    arguments = [
        hook,
        "annotate",
        model,
        data,
        *flags(out=out, method="rise", split="all", max_masks=128, tolerance=0.2, jobs=1),
    ]

    def done() -> dict[Path, int]:
        found = {}
        for file in out.glob(f"{PARTIAL_FOLDER}/shards/*/run.json"):
            with contextlib.suppress(FileNotFoundError):
                found[file] = file.stat().st_mtime_ns
        return found

    pipe = subprocess.PIPE
    with Forked(watched_command, arguments, stdout=pipe, start_new_session=True) as process:
        while not done():
            time.sleep(0.02)
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    before = done()
    assert len(before) == 1
    assert not list(out.glob("maps-*.parquet"))
    with Forked(watched_command, arguments, stdout=pipe) as process:
        more = False
        while process.poll() is None:
            now = done()
            assert all(now[file] == before[file] for file in before if file in now)
            if len(now) > len(before):
                more = True
                go.touch()
            time.sleep(0.02)
        assert process.returncode == 0
    assert more
    assert_same(read_store(out), whole)


def test_a_shard_that_cannot_be_marked_is_told_and_the_others_are_kept(
    data: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(data.parent, tmp_path / "data", ignore=shutil.ignore_patterns("runs", "whole"))
    manifest = tmp_path / "data" / "manifest.csv"
    victim = tmp_path / "data" / "images" / "train-50.png"
    victim.write_bytes(victim.read_bytes()[:-500])  # its header is whole
    out = tmp_path / "maps"
    arguments = ["annotate", model, manifest, *flags(out=out, method="rise", max_masks=128)]
    arguments += flags(tolerance=0.2, cache="none", jobs=2)
    done = run(command, arguments)
    assert done.returncode == 1
    assert "1 of 3 shards failed" in done.stderr
    assert "train-50.png" in done.stdout
    assert len(list(out.glob(f"{PARTIAL_FOLDER}/shards/*/run.json"))) == 2
    assert len(list(out.glob(f"{PARTIAL_FOLDER}/failed/*.log"))) == 1
    # These shards are not those of a model with the same weights and another pooling.
    other = tmp_path / "other"
    save_model(with_pool(load_model(model), Pool("top")), other)
    victim.write_bytes((data.parent / "images" / "train-50.png").read_bytes())
    arguments[1] = other
    assert run(command, arguments).returncode == 0
    direct = annotate(
        loaded(other), Manifest.read(manifest), "rise", out=tmp_path / "direct", rise=RISE
    )
    assert_same(read_store(out), direct)


def test_two_at_once_on_one_folder_are_refused(data: Path, model: Path, tmp_path: Path) -> None:
    with (
        lease(tmp_path / PARTIAL_FOLDER),
        pytest.raises(InputError, match="another process is making maps in this folder"),
    ):
        annotate_in_shards(model, data, tmp_path)


def test_a_shard_that_was_interrupted_continues_after_its_last_block(
    data: Path, model: Path, tmp_path: Path
) -> None:
    """Of which all blocks are done, so that its maps are those of the state that was left."""
    run = RunConfig(manifest=data, backbone="test_byobnet", training=Training(device="cpu"))
    whose = model_digest(loaded(model))
    work = MakeMaps(run, whose, "rise", RISE, Shard("test", 0, 4), model=model)
    step = Step("an-id", work, "a model")
    workspaces = Workspaces({0: data}, {data: tmp_path / "cache"})
    folder = step.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "maps-00000.parquet").write_text("a part")
    total = torch.randn(4, *loaded(model).grid(), dtype=torch.float64)
    used = torch.full((4,), 126)
    error, none = torch.full((4,), 0.125, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    left = RiseState(torch.tensor(3), total, torch.zeros(4, dtype=torch.float64), used, error, none)
    write_state(folder / "rise.safetensors", left)
    assert perform(step, tmp_path, workspaces)
    found = read_store(folder)
    assert found.info.settings["masks"] == 4 * 126
    assert found.error is not None
    assert (found.error == 0.125).all()
    expected = normalize((total / 3).float()).numpy().astype(np.float16)
    np.testing.assert_array_equal(found.maps, expected)
    assert {one.name for one in folder.iterdir()} == {"maps-00000.parquet", "run.json"}


def test_a_model_that_changes_on_the_way_is_refused(
    data: Path, model: Path, tmp_path: Path
) -> None:
    run = RunConfig(manifest=data, backbone="test_byobnet", training=Training(device="cpu"))
    work = MakeMaps(run, "weights", "cam", None, Shard("test", 0, 4), model=model)
    with pytest.raises(InputError, match="other weights than at the start of this command"):
        perform(
            Step("an-id", work, "a model"),
            tmp_path,
            Workspaces({0: data}, {data: tmp_path / "cache"}),
        )
