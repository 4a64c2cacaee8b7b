"""The commands of the image cache."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from preceptor.cli.data_cache_output import print_use
from preceptor.data.cache import open_images
from preceptor.data.cache_use import cache_use
from preceptor.data.manifest import Manifest
from preceptor.data.shards import SHARDS
from preceptor.runtime.formatting import binary_size
from tests.commands import here
from tests.datasets import squares

OLD = time.time() - 40 * 86_400


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of two formats; one was not used for 40 days."""
    folder = tmp_path_factory.mktemp("cache")
    manifest = Manifest.read(squares(folder / "data", splits={"train": 4, "val": 2, "test": 2}))
    for side in (16, 24):
        open_images(manifest, side=side, cache_dir=folder / "c")
        if side == 16:
            for file in (folder / "c").rglob("*"):
                os.utime(file, (OLD, OLD))
    return folder / "c"


def test_the_status_names_folders_numbers_sizes_and_days(caches: Path) -> None:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=80, record=True, file=nowhere)
        print_use(cache_use(caches), caches, console)
    text = console.export_text()
    assert re.match(rf"{re.escape(str(caches))}: [\d.]+ [KM]iB; [\d,.]+ [KMG]iB are free\n", text)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    before, now = (time.strftime("%Y-%m-%d", time.localtime(when)) for when in (OLD, time.time()))
    shards = rows["shards/16-squash-3-v3"]
    size = sum(file.stat().st_size for file in (caches / SHARDS / "16-squash-3-v3").rglob("*.npy"))
    assert shards == ["8", *binary_size(size).split(), before, before]
    assert rows["shards/24-squash-3-v3"][0] == "8"
    assert rows["shards/24-squash-3-v3"][3] >= before
    assert rows["shards/maps-128-v4"][4] == rows["shards/maps-128-v4"][3] <= now
    assert {"views", "index", "checked"} <= rows.keys()


def test_unused_images_are_removed_and_told(caches: Path) -> None:
    kept = here("data", "cache", "clear", "--unused-for", 41, "--cache-dir", caches)
    assert (kept.code, kept.out) == (0, "nothing was unused for 41 days\n")
    folder = caches / SHARDS / "16-squash-3-v3"
    size = binary_size(sum(file.stat().st_size for file in folder.rglob("*.npy")))
    done = here("data", "cache", "clear", "--unused-for", 30, "--cache-dir", caches)
    assert done.code == 0
    assert done.out == f"removed 8 images and maps ({size}) that were not used for 30 days\n"
    assert list((caches / SHARDS / "16-squash-3-v3").iterdir()) == []
    shown = here("data", "cache", "status", "--cache-dir", caches)
    assert shown.code == 0
    assert "24-squash-3-v3" in shown.out
    assert "16-squash-3-v3" not in shown.out


def test_a_wrong_folder_or_number_of_days_is_told_in_one_line(tmp_path: Path) -> None:
    for command in (("status",), ("clear", "--unused-for", 1)):
        wrong = here("data", "cache", *command, "--cache-dir", tmp_path)
        assert wrong.code == 2
        assert wrong.err.startswith(f"error: {tmp_path}: no image cache; name its folder by ")
        assert wrong.err.count("\n") == 1
    assert here("data", "cache", "clear", "--cache-dir", tmp_path).code == 2
    few = here("data", "cache", "clear", "--unused-for", 0, "--cache-dir", tmp_path)
    assert few.code == 2
