"""Throughput and latency of `preceptor serve` under load, against bare batched inference.

  python benchmarks/serve.py [--backbone NAME] [--images N] [--users U] [--batch-size B]
  python benchmarks/serve.py --backbone test_byobnet --memory 100000

The server is a process of its own; the clients are threads of another one, each with one connection
and one JPEG file of 400 × 300 per request. Bare inference: the same network in this process, with
ready batches of the same size and maps. Both run in turn. The clients, the decoding and HTTP share
the cores with the network on a CPU, so that the CPU time of the bare network is also given as a
share of that of the server.

Both sides use the same number of threads (--threads). On a machine that other programs keep busy,
choose 1: two OpenMP threads wait for each other at every layer, and a small network then needs ten
times as long, on whichever side is unlucky. A server that is faster than its own network says that
this has happened, and the script then reports no ratio.

With --memory, so many requests are sent, and the resident memory of the server is printed ten
times.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import machine
from PIL import Image

from preceptor.deploy.network import TorchNetwork
from preceptor.deploy.predictor import Canvas, canvas_of
from preceptor.models.build import build_model, save_model

# A server cannot be faster than its network; a median ratio above this is no noise.
_POSSIBLE = 1.1


def make_images(folder: Path, count: int) -> list[Path]:
    """JPEG files of 400 × 300."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        coarse = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def requests(
    address: str, files: list[bytes], count: int, users: int, form: str, first: int
) -> list[float]:
    """Seconds of each of `count` requests, sent by threads that each wait for their answer."""
    numbers, seconds = itertools.count(first), []
    lock = threading.Lock()

    def user() -> None:
        connection = http.client.HTTPConnection(address, timeout=600)
        while True:
            with lock:
                at = next(numbers)
            if at >= first + count:
                connection.close()
                return
            started = time.perf_counter()
            connection.request(
                "POST",
                f"/predict?map={form}",
                files[at % len(files)],
                {"content-type": "image/jpeg"},
            )
            answer = connection.getresponse()
            content = answer.read()
            took = time.perf_counter() - started
            assert answer.status == 200, content
            with lock:
                seconds.append(took)

    threads = [threading.Thread(target=user) for _ in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def _client(queue: Any, *arguments: Any) -> None:
    started = time.perf_counter()
    seconds = requests(*arguments)
    queue.put((time.perf_counter() - started, seconds))


def load(*arguments: Any) -> tuple[float, list[float]]:
    """Seconds of all requests and of each, sent by another process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_client, args=(queue, *arguments))
    process.start()
    found: tuple[float, list[float]] = queue.get()
    process.join()
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def mean_batch(address: str) -> tuple[float, float]:
    """Number of images and of batches so far."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    sums = [re.search(rf"preceptor_batch_size_{one}\S* (\S+)", text) for one in ("sum", "count")]
    return tuple(0.0 if one is None else float(one[1]) for one in sums)  # type: ignore[return-value]


def start(model: Path, size: int, device: str, threads: int) -> tuple[subprocess.Popen[str], str]:
    """Server and its address."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "preceptor",
            "serve",
            str(model),
            "--port",
            "0",
            "--batch-size",
            str(size),
            "--device",
            device,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    assert process.stdout is not None
    found = re.search(r"http://([^/]+)/", process.stdout.readline())
    assert found
    return process, found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--map", default="grid", choices=["none", "grid", "png"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = make_images(folder / "images", 64)
        contents = [path.read_bytes() for path in files]
        size = 64 if given.backbone.startswith("test_") else None
        model = build_model(given.backbone, ["real", "fake"], positive="fake", input_size=size)
        save_model(model, folder / "best")
        server, address = start(folder / "best", given.batch_size, given.device, given.threads)
        try:
            if given.memory:
                print(f"{machine()}\n{given.backbone}, {given.users} users")
                part = given.memory // 10
                for number in range(10):
                    load(address, contents, part, given.users, given.map, number * part)
                    print(f"{(number + 1) * part:8,} requests: {memory(server.pid):7.1f} MiB")
                return
            measure(given, model, files, contents, server.pid, address)
        finally:
            server.terminate()
            server.communicate()


def measure(
    given: argparse.Namespace,
    model: Any,
    files: list[Path],
    contents: list[bytes],
    pid: int,
    address: str,
) -> None:
    """Measure both sides in turn, and print the ratio."""
    network = TorchNetwork(model, device=given.device)
    form = network.info.image_format
    decoded = [canvas_of(path, form) for path in files]
    pixels = [one.pixels for one in decoded if isinstance(one, Canvas)]
    batch = np.stack([pixels[at % len(pixels)] for at in range(given.batch_size)])
    batches = given.images // given.batch_size
    count = batches * given.batch_size
    network(batch)
    load(address, contents, count // 4, given.users, given.map, 0)
    before = mean_batch(address)
    bare, served, bare_cpu, served_cpu, each = [], [], [], [], []
    for _ in range(given.turns):
        started, used = time.perf_counter(), time.process_time()
        for _ in range(batches):
            network(batch, maps=given.map != "none")
        bare.append(time.perf_counter() - started)
        bare_cpu.append(time.process_time() - used)
        used = cpu_seconds(pid)
        seconds, requests_ = load(address, contents, count, given.users, given.map, 0)
        served.append(seconds)
        served_cpu.append(cpu_seconds(pid) - used)
        each += requests_
    images, passes = (b - a for a, b in zip(before, mean_batch(address), strict=True))
    print(machine())
    print(
        f"{given.backbone} at {form.size} px, batch {given.batch_size}, {given.users} users, "
        f"map={given.map}"
    )
    print(f"mean batch of the server: {images / passes:.1f} images")
    print(f"bare network: {count / median(bare):8.1f} images/s")
    print(f"serve:        {count / median(served):8.1f} images/s")
    ratios = [a / b for a, b in zip(bare, served, strict=True)]
    work = [a / b for a, b in zip(bare_cpu, served_cpu, strict=True)]
    if median(ratios) > _POSSIBLE:
        print(f"no ratio: the bare network was disturbed by other programs ({ratios}, {work})")
    else:
        print(
            f"serve ÷ bare network, images/s: {median(ratios):.3f} ({min(ratios):.3f} to "
            f"{max(ratios):.3f})"
        )
        print(f"CPU time of the bare network ÷ of serve: {median(work):.3f}")
    each.sort()
    quantiles = {q: each[min(len(each) - 1, int(q / 100 * len(each)))] for q in (50, 95, 99)}
    print(
        "latency under this load: "
        + ", ".join(f"p{q} {1000 * value:.0f} ms" for q, value in quantiles.items())
    )


if __name__ == "__main__":
    main()
