"""One run on several devices: real processes over gloo, which agree with one and outlive none."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from preceptor.config.training import Training
from preceptor.data.loader import shares, split_batches
from preceptor.errors import InputError
from preceptor.runtime.result_folder import read_record
from preceptor.training.distributed import make_fabric
from preceptor.training.launch import launch
from preceptor.training.run import train
from tests.commands import assert_refused
from tests.datasets import squares
from tests.launches import apart, ended, finished, ranks_of, run_of, start, start_anew, until
from tests.start_up import imported_by

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


def test_two_devices_see_as_many_images_as_one(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 25, "val": 4, "test": 2})
    steps = {"batch_size": 20, "length": "steps", "steps": 10, "epochs": 2}
    one = train(run_of(manifest, steps), tmp_path / "one").folder
    two = finished(run_of(manifest, steps | {"devices": 2}), tmp_path / "two")
    assert [read_record(folder)["images_seen"] for folder in (one, two)] == [200, 200]
    # Rounding grows over 10 steps; other images would be 0.1 or more apart.
    assert apart(one, two) < 5e-3


@pytest.mark.parametrize(
    ("values", "training"),
    [
        ({"backbone": "test_convnext", "alpha_start": 0.0}, {"balanced": True, "clip": None}),
        ({"backbone": "test_efficientnet_gn", "alpha": 0.0}, {"distance": "mse"}),
        ({"backbone": "test_vit", "alpha": 0.0}, {"consistency": 0.5}),
    ],
    ids=["test_convnext", "test_efficientnet_gn", "test_vit"],
)
def test_two_devices_do_what_one_does(
    manifest: Path, tmp_path: Path, values: dict[str, Any], training: dict[str, Any]
) -> None:
    """Measured, over four steps: weights apart by at most 4e-6 of the largest of their tensor."""
    one = train(run_of(manifest, training, **values), tmp_path / "one").folder
    two = finished(run_of(manifest, training | {"devices": 2}, **values), tmp_path / "two")
    assert apart(one, two) < 2e-5
    metrics, same = (pd.read_csv(folder / "metrics.csv") for folder in (one, two))
    assert list(metrics.columns) == list(same.columns)
    np.testing.assert_allclose(metrics, same, rtol=1e-4, atol=1e-6)
    scores, likewise = (pd.read_parquet(folder / "scores.parquet") for folder in (one, two))
    np.testing.assert_allclose(scores["score_marked"], likewise["score_marked"], atol=1e-5)
    assert read_record(two)["images_seen"] == read_record(one)["images_seen"]
    assert one.name != two.name


def test_memory_that_runs_out_on_one_device_ends_the_run(manifest: Path, tmp_path: Path) -> None:
    config = run_of(manifest, {"devices": 2, "epochs": 400, "input_size": 96, "batch_size": 12})
    # Every tensor of 64 KiB is asked of the kernel, which gives little more from a point on.
    process = start_anew(config, tmp_path / "runs", MALLOC_MMAP_THRESHOLD_="65536")
    until(process, "epoch 1/")
    rank = ranks_of(process)[1]
    now = int(Path(f"/proc/{rank}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(rank, resource.RLIMIT_AS, (now + 2**22, now + 2**22))
    outcome = ended(process)
    assert outcome.code == 1
    assert "out of memory on device 2 of 2 (batch_size 12, input_size 96); lower" in outcome.err
    assert outcome.err.count("\n") == 1, outcome.err


def test_what_cannot_be_run_on_several_devices_is_refused(manifest: Path, tmp_path: Path) -> None:
    two = {"devices": 2}
    with pytest.raises(InputError, match=r"with python -m preceptor\.training CONFIG"):
        train(run_of(manifest, two), tmp_path)
    batch_norm = run_of(manifest, two, backbone="test_byobnet")
    expected = ["test_byobnet has batch norm", "needs GPUs", "set training.devices: 1"]
    assert_refused(ended(start(batch_norm, tmp_path / "bn")), expected)
    with pytest.raises(InputError, match="nodes is 2, and MASTER_ADDR, MASTER_PORT, NODE_RANK not"):
        launch(run_of(manifest, {"nodes": 2}), str(tmp_path))
    with pytest.raises(ValueError, match="batch_size is 7, fewer than the 8 devices"):
        Training(devices=4, nodes=2, batch_size=7)
    (tmp_path / "broken.csv").write_text("path,label,split\nnone.png,a,train\n")
    missing = ended(start(run_of(tmp_path / "broken.csv", two), tmp_path / "broken"))
    assert missing.code == 2
    assert missing.err.startswith("error: ")
    assert "none.png" in missing.err
    assert "Traceback" not in missing.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_devices_that_are_not_there(manifest: Path) -> None:
    """Each process says so, and `launch` the first of them, as it says other refusals."""
    settings = run_of(manifest, {"devices": 2, "device": "cuda"}).training
    with pytest.raises(InputError, match=r"training\.device cuda, .* not available"):
        make_fabric(settings)


def test_the_launcher_imports_no_torch() -> None:
    heavy = {"torch", "timm", "pandas", "lightning_fabric"}
    assert not imported_by("import preceptor.training.__main__", heavy).imported


def test_shares_divide_a_batch_and_short_batches_join() -> None:
    for count in range(1, 40):
        for world in range(1, 9):
            parts = shares(count, world)
            expected = np.array_split(np.arange(count), world)
            assert [list(range(count))[part] for part in parts] == [list(p) for p in expected]
            sizes = [part.stop - part.start for part in split_batches(count, 8, max(2, world))]
            assert sum(sizes) == count
            assert min(sizes) >= min(count, max(2, world))
