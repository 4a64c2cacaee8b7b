"""The commands of the image cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from preceptor.cli.data_cache_output import print_use
from preceptor.data.cache import open_images
from preceptor.data.cache_use import cache_use
from preceptor.data.manifest import Manifest
from preceptor.data.shards import SHARDS
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
    assert text.startswith(f"{caches}: 0.0 GiB; ")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    before, now = (time.strftime("%Y-%m-%d", time.localtime(when)) for when in (OLD, time.time()))
    assert rows["shards/16-squash-3-v3"] == ["8", "0.0", "GiB", before, before]
    assert rows["shards/24-squash-3-v3"][:3] == ["8", "0.0", "GiB"]
    assert rows["shards/24-squash-3-v3"][3] >= before
    assert rows["shards/maps-128-v3"][4] == rows["shards/maps-128-v3"][3] <= now
    assert {"views", "index", "checked"} <= rows.keys()


def test_unused_images_are_removed_and_told(caches: Path) -> None:
    kept = here("data", "cache", "clear", "--unused-for", 41, "--cache-dir", caches)
    assert (kept.code, kept.out) == (0, "nothing was unused for 41 days\n")
    done = here("data", "cache", "clear", "--unused-for", 30, "--cache-dir", caches)
    assert done.code == 0
    assert done.out == "removed 8 images and maps (0.0 GiB) that were not used for 30 days\n"
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
