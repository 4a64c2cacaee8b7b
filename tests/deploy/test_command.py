"""`preceptor serve` as a process: start, stop under load; and what it refuses."""

from __future__ import annotations

import concurrent.futures
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
    """Requests that the server has begun are answered; the delay holds them in their batch."""
    content = pictures.good[0].read_bytes()
    options = ["--device", "cpu", "--batch-size", "3", "--delay", "1000", "--threshold", "0.2"]
    one = Process([f"small={served_folders['best']}", served_folders["three"], *options])
    with pytest.raises(AssertionError, match="no positive class"):
        one.start()
    one.arguments = one.arguments[:-2]
    one.start()
    assert one.said == f"serving small, three on http://127.0.0.1:{one.port}/\n"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        line, both = "preceptor_images_in_flight 2", False
        while not both:  # on a busy machine the delay may end before the second request comes
            begun = [
                pool.submit(
                    send, one.address, "POST", "/predict", content, {"content-type": "image/x"}
                )
                for _ in range(2)
            ]
            while not both and not all(told.done() for told in begun):
                both = line in send(one.address, "GET", "/metrics").content.decode()
        code, out = one.stop(number)
        assert [told.result().status for told in begun] == [200, 200]
    assert (code, out) == (0, "stopped\n")


def test_what_the_command_refuses(served_folders: dict[str, Path], tmp_path: Path) -> None:
    best = served_folders["best"]
    for options, expected in (
        ((best, "--host", "0.0.0.0"), "others can reach this server; add --keys or --no-keys"),
        ((best, "--keys", tmp_path / "keys", "--no-keys"), "choose one of the two"),
        ((best, "--keys", tmp_path / "keys"), "keys: No such file"),
        ((best, best), "there is another model 'best'; give each a name: NAME="),
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
