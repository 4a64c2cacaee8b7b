"""SIGKILLs of the process that fills an image cache from a server with faults.

    python benchmarks/cache_kill.py [--kills 20] [--images 600]

Images and maps lie behind an HTTP server that answers some requests with 503 and cuts some bodies.
A process reads the manifest and fills the cache, in shards of 32 images; it is killed after a
random number of files, and started again, in the same folders. Every second time the copies of the
remote files are removed first, so that they are loaded again. After each kill, every image and map
of the shards must be equal, bit for bit, to that of a cache that was filled without disturbance
from local files, and be there once; after the last one, the process goes on where the one before
was killed and ends by itself, and leaves all of them and no hidden folder. Ends with 1 otherwise.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from measure import machine
from PIL import Image

from preceptor.data.shards import DIGESTS, PIXELS, SHARDS, SIZES

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fault_server import FaultServer, fault_server

FILL = """
import sys
from pathlib import Path
from preceptor.data import file_reading, shards
from preceptor.config.image_format import ImageFormat
from preceptor.data.decode_pass import DecodePass
from preceptor.data.manifest import Manifest
def told(done, total):
    print(done, total, flush=True)
shards._SHARD_BYTES = 32 * 48 * 48 * 3
file_reading._STORED_AFTER = 0.1
with DecodePass(Path(sys.argv[2]), [ImageFormat(48)]) as decoding:
    Manifest.read(Path(sys.argv[1]), decoding=decoding, progress=told)
"""


def content(pixels: np.ndarray) -> bytes:
    """PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_files(count: int) -> dict[str, bytes]:
    """Images and, for every third, a map."""
    generator = np.random.default_rng(0)
    files = {}
    for number in range(count):
        files[f"{number}.png"] = content(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        if number % 3 == 0:
            mark = generator.integers(0, 2, (64, 64), dtype=np.uint8) * 255
            files[f"map{number}.png"] = content(mark)
    return files


def write_manifest(file: Path, count: int, prefix: str) -> Path:
    """Manifest of the files at a place."""
    rows = [
        (
            f"{prefix}{number}.png",
            "ab"[number % 2],
            ("train", "train", "val", "test")[number // 2 % 4],
            f"{prefix}map{number}.png" if number % 3 == 0 else "",
        )
        for number in range(count)
    ]
    columns = ["path", "label", "split", "saliency"]
    pd.DataFrame(rows, columns=columns).to_csv(file, index=False)
    return file


def add_faults(server: FaultServer, draw: random.Random) -> None:
    """A tenth of the files is busy once, another tenth is cut once."""
    for path in server.files:
        chance = draw.random()
        if chance < 0.1:
            server.busy[path] = 1
        elif chance < 0.2:
            server.cut[path] = 1


def images_of(folder: Path) -> dict[tuple[str, bytes], tuple[bytes, bytes]]:
    """Pixels and size of the file by format and content hash; each is there once."""
    found = {}
    for shard in sorted((folder / SHARDS).glob("*/*")):
        parts = (np.load(shard / name) for name in (DIGESTS, PIXELS, SIZES))
        for digest, pixels, size in zip(*parts, strict=True):
            key = (shard.parent.name, digest.tobytes())
            assert key not in found, key
            found[key] = (pixels.tobytes(), size.tobytes())
    return found


def start(manifest: Path, folder: Path, copies: Path) -> subprocess.Popen[str]:
    """Process that fills the cache and tells how many files it has read."""
    command = [sys.executable, "-c", FILL, str(manifest), str(folder)]
    environment = os.environ | {"PRECEPTOR_CACHE": str(copies)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(machine())
    draw = random.Random(given.seed)
    files = make_files(given.images)
    with tempfile.TemporaryDirectory() as temporary, fault_server(files=dict(files)) as server:
        root = Path(temporary)
        (root / "local").mkdir()
        for name, data in files.items():
            (root / "local" / name).write_bytes(data)
        local = write_manifest(root / "local.csv", given.images, f"{root}/local/")
        if start(local, root / "expected", root / "none").wait():
            print("the undisturbed process failed")
            return 1
        expected = images_of(root / "expected")

        remote = write_manifest(root / "remote.csv", given.images, server.url(""))
        killed, wrong = 0, 0
        seen: list[int] = []
        kept: list[int] = []
        while killed < given.kills:
            add_faults(server, draw)
            if killed % 2 == 0:
                shutil.rmtree(root / "copies", ignore_errors=True)
            process = start(remote, root / "cache", root / "copies")
            assert process.stdout is not None
            share, done = draw.random(), 0  # of the files that are left
            for line in process.stdout:
                done, total = map(int, line.split())
                if done >= share * total:
                    break
            process.kill()
            process.stdout.close()
            if process.wait() == 0:  # it had ended before
                shutil.rmtree(root / "cache")
                continue
            killed += 1
            seen.append(done)
            held = images_of(root / "cache")
            kept.append(len(held))
            wrong += any(expected.get(key) != one for key, one in held.items())
            if len(held) > 0.8 * len(expected):  # the next process has enough to do
                shutil.rmtree(root / "cache")
        ended = start(remote, root / "cache", root / "copies").wait()
        hidden = [one.name for one in (root / "cache").rglob(".*") if one.is_dir()]
        equal = images_of(root / "cache") == expected
        print(
            f"{killed} kills after {min(seen)} to {max(seen)} files of those left of {len(files)}; "
            f"{min(kept)} to {max(kept)} images and maps in shards; {wrong} wrong caches; at "
            f"the end: exit code {ended}, cache equal to the undisturbed one: {equal}, "
            f"hidden folders: {len(hidden)}; {len(server.requests):,} requests"
        )
        return int(bool(wrong or ended or hidden or not equal))


if __name__ == "__main__":
    sys.exit(main())
