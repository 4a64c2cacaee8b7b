"""Output of `preceptor data check`."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from preceptor.data.manifest import Manifest
from preceptor.data.summary import summary_table


def print_summary(manifest: Manifest, console: Console) -> None:
    """Print `summary_table`.

    Args:
        manifest: The images.
        console: Where to.
    """
    summary = summary_table(manifest)
    title = manifest.source.name if manifest.source else str(manifest.root)
    printed = Table(title=f"{title}: {len(manifest):,} images", box=SIMPLE_HEAD, pad_edge=False)
    printed.add_column("split", no_wrap=True)
    for column in summary.columns:
        if column == "sizes":
            printed.add_column("sizes")  # the one column that a narrow screen may break
        else:
            printed.add_column(str(column), justify="right", no_wrap=True)
    for split, row in summary.iterrows():
        printed.add_row(str(split), *(f"{x:,}" if isinstance(x, int) else str(x) for x in row))
    console.print(printed)
