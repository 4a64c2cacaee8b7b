"""Memory of a training process by the number of images in the manifest.

    python benchmarks/training_memory.py MANIFEST FEW CACHE

MANIFEST and FEW are manifests of many and of few rows whose images were verified into CACHE. Two
processes at a time train a small network on each: they open the workspace as the workers of a study
do, train eight steps and validate, and wait. Then the memory that is only theirs (USS: the sum of
Private_Clean and Private_Dirty in /proc/self/smaps_rollup) is read. The figure is the difference
of both manifests ÷ that of their rows. Both processes read one cache of canvases and one table,
whose pages are shared and not counted; they are in `shared`.

The canvases are one picture for all images, since their content does not change the figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.cache_view import open_view
from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.decode_pass import INDEX, DecodePass
from preceptor.data.fingerprints import contents_of
from preceptor.data.manifest import Manifest
from preceptor.data.shard_writer import ShardWriter
from preceptor.data.shards import ShardFolder
from preceptor.execution.fork_server import ForkServer
from preceptor.runtime.child_process import call_in_child
from preceptor.study.workspaces import Workspaces
from preceptor.training.run import train

SIDE = 32
TARGET = (Path(__file__).stem, "serve_training")
PROCESSES = 2
KINDS = ("spawned", "forked")


class Memory(NamedTuple):
    """Memory of a process in bytes: only its own, of that unchanged file pages, and shared."""

    own: int
    clean: int
    shared: int

    @classmethod
    def now(cls) -> Memory:
        """Memory of this process."""
        with Path("/proc/self/smaps_rollup").open(encoding="utf-8") as file:
            kib = {line.split()[0]: int(line.split()[1]) for line in list(file)[1:]}
        clean, dirty = kib["Private_Clean:"], kib["Private_Dirty:"]
        shared = kib["Shared_Clean:"] + kib["Shared_Dirty:"]
        return cls(*(1024 * value for value in (clean + dirty, clean, shared)))


def config_of(manifest: Path) -> RunConfig:
    """Plain training of a small network, with one validation."""
    training = Training(
        input_size=SIDE, in_chans=1, batch_size=64, length="steps", steps=8, epochs=1
    )
    return RunConfig(
        manifest=manifest, backbone="test_resnet", positive="a", alpha=1.0, training=training
    )


def serve_training(pipe: Connection) -> None:
    """Train, and tell the memory after the first validation when asked for it."""
    manifest, cache, store = pipe.recv()
    workspace = Workspaces({0: manifest}, {manifest: cache}).at(manifest)

    def tell(line: str) -> None:
        pipe.send(line)
        pipe.recv()
        pipe.send(Memory.now())
        pipe.recv()

    train(config_of(manifest), store, workspace=workspace, tell_epoch=tell)


def fill_cache(manifest: Path, cache: Path) -> int:
    """Cache of the manifest's canvases, all of one picture; returns the number of rows."""
    table = Manifest.read(manifest, verify=False, decoding=DecodePass(cache))
    form = CanvasFormat(SIDE, "squash", 1)
    contents = contents_of(table, cache / INDEX)
    if open_view(cache, form, contents) is None:
        hidden = cache / ".benchmark"
        hidden.mkdir()
        writer = ShardWriter(ShardFolder.of_images(cache, form), hidden, len(table))
        picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 1), np.uint8)
        for digest in contents.images:
            if writer.wants(digest.tobytes()):
                writer.put(digest.tobytes(), picture, (SIDE, SIDE))
        writer.finish()
        hidden.rmdir()
        assert open_view(cache, form, contents) is not None
    return len(table)


def start(server: ForkServer | None) -> tuple[Any, Connection]:
    """Process that is spawned, or forked as a worker of a study."""
    if server is not None:
        return server.fork()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=call_in_child, args=(*TARGET, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def largest(kind: str, manifest: Path, cache: Path) -> Memory:
    """Memory of the larger of two processes that train at the same time."""
    server = ForkServer(TARGET) if kind == "forked" else None
    with tempfile.TemporaryDirectory() as folder:
        workers = [start(server) for _ in range(PROCESSES)]
        for number, (_, pipe) in enumerate(workers):
            pipe.send((manifest, cache, Path(folder) / str(number)))
        for _, pipe in workers:
            pipe.recv()
        for _, pipe in workers:
            pipe.send(True)
        found = [pipe.recv() for _, pipe in workers]
        for process, _ in workers:
            process.kill()
            process.join()
        if server is not None:
            server.end()
    return Memory(*max(found))


def figures(manifest: Path, few: Path, cache: Path, kinds: Sequence[str] = KINDS) -> Iterator[str]:
    """Line of each kind of process: bytes an image, and the memory that they are computed from."""
    counts = [fill_cache(one, cache) for one in (manifest, few)]
    for kind in kinds:
        many, base = (largest(kind, one, cache) for one in (manifest, few))
        figure = (many.own - base.own) / (counts[0] - counts[1])
        yield (
            f"{kind:>8}: {figure:.0f} bytes an image; {counts[0]:,} rows {many.own / 2**20:.0f} "
            f"MiB (of these unchanged file pages {many.clean / 2**20:.0f}; shared "
            f"{many.shared / 2**20:.0f}), {counts[1]:,} rows {base.own / 2**20:.0f} MiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("few", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    given = parser.parse_args()
    for line in figures(given.manifest, given.few, given.cache, given.kinds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
