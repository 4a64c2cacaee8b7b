"""Runs on several devices in tests: real processes over gloo on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from preceptor.config.run import RunConfig
from preceptor.config.yaml_file import dump_config
from preceptor.runtime.checksums import file_digest
from tests.commands import HANGS, Outcome
from tests.forked import Forked, training

LEFT = ("model/model.safetensors", "metrics.csv", "scores.parquet")
CHANGES = {
    "flip": True,
    "quarter_turns": True,
    "crop_area": 0.6,
    "color": 0.3,
    "jpeg": 0.5,
    "outside": "other",
}
# Batches of 7, 7, 7 and 3 of 24 images: 4 + 3 and 2 + 1 over two devices.
SMALL = {
    "input_size": 64,
    "batch_size": 7,
    "epochs": 1,
    "lr": 0.01,
    "schedule": "constant",
    "clip": 1.0,
    "augmentation": CHANGES,
    "device": "cpu",
}
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
LONGER = {"devices": 2, "epochs": 10}


def run_of(manifest: Path, training: dict[str, Any], **values: Any) -> RunConfig:
    base = {"manifest": manifest, "backbone": "test_vit", "positive": "marked", "alpha": 0.3}
    return RunConfig.model_validate(base | values | {"training": SMALL | training})


def start(
    config: RunConfig, store: Path, hold: tuple[str, Path] | None = None, **environment: str
) -> subprocess.Popen[str]:
    """`python -m preceptor.training`; the config lies beside the store.

    Args:
        hold: Line and file of `Forked`, for the first process of the run.
    """
    arguments = _written(config, store)
    return Forked(training, arguments, hold=hold, env=os.environ | environment, **PIPES)


def start_anew(config: RunConfig, store: Path, **environment: str) -> subprocess.Popen[str]:
    """The same where the processes are to start Python themselves, as those of users do."""
    command = [sys.executable, "-m", "preceptor.training", *_written(config, store)]
    return subprocess.Popen(command, text=True, env=os.environ | environment, **PIPES)


def _written(config: RunConfig, store: Path) -> list[str]:
    file = store.with_suffix(".yaml")
    file.write_text(dump_config(config))
    return [str(file), str(store)]


def ended(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=HANGS)
    return Outcome(process.returncode, out, err)


def finished(config: RunConfig, store: Path) -> Path:
    """The folder of a run that several devices finished without a word on standard error."""
    outcome = ended(start(config, store))
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    return Path(outcome.out.splitlines()[-1].removeprefix("run "))


def until(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"it never said {beginning!r}: {ended(process)}")


def ranks_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """LOCAL_RANK → process id of a command's children, which the kernel lists as they began."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = " ".join(file.read_text() for file in tasks).split()
    tracker = b"multiprocessing.resource_tracker"  # of processes that start Python themselves
    own = [one for one in children if tracker not in Path(f"/proc/{one}/cmdline").read_bytes()]
    return {rank: int(child) for rank, child in enumerate(own)}


def apart(one: Path, other: Path) -> float:
    """The largest difference of weights relative to the largest weight of its tensor."""
    a, b = (load_file(folder / "model/model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max() / a[key].abs().max()) for key in a)


def assert_same(one: Path, other: Path) -> None:
    for name in LEFT:
        assert file_digest(one / name) == file_digest(other / name), name
