"""`preceptor serve` as a process: start, stop; and what it refuses."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.commands import assert_refused, here
from tests.deploy.serving import Process, send
from tests.image_files import ImageFiles
from tests.model_folders import model_folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_stopped(
    served_folders: dict[str, Path], pictures: ImageFiles, number: signal.Signals
) -> None:
    one = Process([served_folders["three"], "--device", "cpu", "--threshold", "0.2"])
    with pytest.raises(AssertionError, match="no positive class"):
        one.start()
    one.arguments = one.arguments[:-2]
    one.start()
    assert one.said == f"serving {served_folders['three']} on http://127.0.0.1:{one.port}/\n"
    assert send(one.address, "POST", "/predict", pictures.good[0].read_bytes()).status == 200
    assert one.stop(number) == (0, "stopped\n")


def test_what_the_command_refuses(served_folders: dict[str, Path], tmp_path: Path) -> None:
    best = served_folders["best"]
    for options, expected in (
        ((best, "--host", "0.0.0.0"), "others can reach this server; add --keys or --no-keys"),
        ((best, "--keys", tmp_path / "keys", "--no-keys"), "choose one of the two"),
        ((best, "--keys", tmp_path / "keys"), "keys: No such file"),
        ((tmp_path,), "is not a model folder"),
        ((best, "--threshold", "fdr2%"), "no such threshold; it has eer"),
        ((best, "--device", "cuda:99"), "GPUs"),
        ((best, "--host", "256.0.0.1", "--no-keys"), "choose another"),
    ):
        assert_refused(here("serve", *options, "--port", 0), [expected])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(here("serve", best, "--port", port), [f"--port {port}", "choose another"])


def test_a_folder_with_one_byte_changed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "best", "test_byobnet")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_refused(here("serve", folder, "--port", 0), ["does not match its checksum"])
