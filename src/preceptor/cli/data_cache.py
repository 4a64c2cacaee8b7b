"""Commands of `preceptor data cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import CacheDirOption

cache = typer.Typer(
    help="Show the image cache, and remove images that are not used.", no_args_is_help=True
)


@cache.command()
def status(cache_dir: CacheDirOption = None) -> None:
    """Print the folders of an image cache: numbers of images, sizes, days of the last use."""
    from rich.console import Console

    from preceptor.cli.data_cache_output import print_use
    from preceptor.data.cache_use import cache_use

    folder = _folder(cache_dir)
    print_use(cache_use(folder), folder, Console())


@cache.command()
def clear(
    unused_for: Annotated[
        int, typer.Option(min=1, metavar="DAYS", help="Days since the last use of what is removed.")
    ],
    cache_dir: CacheDirOption = None,
) -> None:
    """Remove images that no manifest has used for some days.

    They are decoded again when a manifest needs them. Running processes keep the images that they
    have opened.
    """
    from preceptor.cli.data_cache_output import removed_words
    from preceptor.data.cache_use import remove_unused

    print(removed_words(remove_unused(_folder(cache_dir), unused_for), unused_for))


def _folder(cache_dir: Path | None) -> Path:
    from preceptor.runtime.cache_dir import default_cache_dir

    return cache_dir or default_cache_dir()
