"""A run on several devices whose processes die: the same command ends with the same bits."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from tests.commands import HANGS
from tests.launches import (
    LONGER,
    assert_same,
    ended,
    finished,
    ranks_of,
    run_of,
    start,
    until,
)

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


def test_whatever_dies_the_same_command_ends_with_the_same_bits(
    manifest: Path, tmp_path: Path
) -> None:
    """Three devices: their sums depend on the order, which must not depend on where a run began."""
    config = run_of(manifest, LONGER | {"devices": 3})
    undisturbed = finished(config, tmp_path / "undisturbed")

    process = start(config, tmp_path / "killed", ("epoch 1/", tmp_path / "never"))
    until(process, "epoch 1/")
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    outcome = ended(process)
    assert outcome.code == 1
    assert outcome.err == (
        "error: process 2 of 3 was killed by signal 9, perhaps for want of memory; the same "
        "command goes on from the last epoch\n"
    )

    process = start(config, tmp_path / "killed", ("epoch", tmp_path / "never"))
    until(process, "resumed after epoch")
    until(process, "epoch")
    watched = select.poll()
    members = [os.pidfd_open(pid) for pid in ranks_of(process).values()]
    assert len(members) == 3
    process.kill()
    for member in members:  # none outlives the command
        watched.register(member, select.POLLIN)
        assert watched.poll(1000 * HANGS)
        watched.unregister(member)
        os.close(member)
    ended(process)
    folder = tmp_path / "killed" / undisturbed.name
    assert not (folder / "run.json").exists()

    assert finished(config, tmp_path / "killed") == folder
    assert_same(folder, undisturbed)
    assert not list(tmp_path.glob("killed/.*"))  # no lease is left
