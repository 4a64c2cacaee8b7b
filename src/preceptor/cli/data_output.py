"""Output of `preceptor data check` and `data plant`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.data.manifest import Manifest
from preceptor.data.notes import summary_table
from preceptor.data.plant import Planted


def print_summary(
    manifest: Manifest, console: Console, sizes: NDArray[np.int32] | None = None
) -> None:
    """Print `summary_table`.

    Args:
        manifest: The images.
        console: Output console.
        sizes: Sizes of the images, see `summary_table`.
    """
    summary = summary_table(manifest, sizes)
    title = manifest.source.name if manifest.source else str(manifest.root)
    header = ["split", *map(str, summary.columns)]
    lines = [
        [str(split), *(f"{x:,}" if isinstance(x, int) else str(x) for x in row)]
        for split, row in summary.iterrows()
    ]
    console.print(f"{title}: {len(manifest):,} images", markup=False, highlight=False)
    if _width([header, *lines]) <= console.width:
        console.print(_table(header, lines))
        return
    # Too wide: transposed, with one column per split, in as many tables as the width requires.
    while lines:
        count = len(lines)
        while count > 1 and _width(zip(header, *lines[:count], strict=True)) > console.width:
            count -= 1
        turned = list(zip(header, *lines[:count], strict=True))
        console.print(_table(turned[0], turned[1:]))
        lines = lines[count:]


def print_planted(planted: Planted) -> None:
    """Print what `plant` has written.

    Args:
        planted: Result of `plant`.
    """
    settings = planted.settings
    print(f"wrote {planted.manifest}: {planted.images:,} images")
    for counts in planted.splits:
        if not counts.images:
            continue
        print(
            f"{counts.split}: {counts.marked:,} of {counts.images:,} images of class "
            f"{settings.label} have a {settings.kind}"
        )
    if left := len(planted.no_place):
        print(
            f"note: {left:,} image{'s' if left > 1 else ''} got no mark, because the human map "
            "leaves no place for a stamp"
        )
    if over := sum(counts.touch_map for counts in planted.splits):
        print(f"note: {over:,} stamp{'s lie' if over > 1 else ' lies'} on a human map")
    if not planted.clean_validation:
        print(
            "note: no validation set is without the shortcut; add one, such as val-clean, for the "
            "selection of α"
        )


def _width(lines: Iterable[Sequence[str]]) -> int:
    """Width of a table of these lines, in cells: two blanks between columns, one at each side."""
    columns = list(zip(*lines, strict=True))
    return sum(max(map(cell_len, column)) for column in columns) + 2 * len(columns)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for position, name in enumerate(header):
        table.add_column(escape(name), justify="right" if position else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table
