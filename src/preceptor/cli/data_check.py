"""Command `preceptor data check`."""

from __future__ import annotations

from preceptor.cli.options import ManifestPath


def data_check(manifest: ManifestPath) -> None:
    """Check a manifest and print a summary.

    All images and maps are decoded; all problems are listed by row.
    """
    from rich.console import Console

    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.cli.data_output import print_summary
        from preceptor.data.manifest import Manifest
        from preceptor.data.notes import notes
        from preceptor.runtime.progress import progress

    with progress() as bar:
        task = bar.add_task("reading images", total=None, note="")
        table = Manifest.read(
            manifest, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    print_summary(table, Console())
    for note in notes(table):
        print(f"note: {note}")
