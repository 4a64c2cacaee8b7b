"""Output of `preceptor data cache`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

from rich.console import Console

from preceptor.data.cache_use import CacheUse, ShardUse
from preceptor.data.shards import SHARDS
from preceptor.runtime.formatting import DASH, binary_size
from preceptor.runtime.printed_table import print_table


def print_use(use: CacheUse, cache_dir: Path, console: Console) -> None:
    """Print the use of the disk by an image cache.

    Args:
        use: Use of the disk.
        cache_dir: Folder of the cache.
        console: Output console.
    """
    total = sum(one.bytes for one in use.shards) + sum(use.others.values())
    free = shutil.disk_usage(cache_dir).free
    console.print(
        f"{cache_dir}: {binary_size(total)}; {binary_size(free)} are free",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    header = ["folder", "images", "size", "last use", "earliest"]
    lines = []
    for form, group in groupby(use.shards, key=lambda one: one.form):
        shards = list(group)
        lines.append(
            [
                f"{SHARDS}/{form}",
                f"{sum(one.images for one in shards):,}",
                binary_size(sum(one.bytes for one in shards)),
                _day(max(one.last for one in shards)),
                _day(min(one.last for one in shards)),
            ]
        )
    lines += [[name, DASH, binary_size(size), DASH, DASH] for name, size in use.others.items()]
    print_table(header, lines, console, right={"images", "size"})


def removed_words(removed: Sequence[ShardUse], days: int) -> str:
    """What was removed, in one line."""
    since = f"used for {days} day{'s' if days != 1 else ''}"
    if not removed:
        return f"nothing was un{since}"
    images = sum(one.images for one in removed)
    size = binary_size(sum(one.bytes for one in removed))
    return f"removed {images:,} images and maps ({size}) that were not {since}"


def _day(when: float) -> str:
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d")
