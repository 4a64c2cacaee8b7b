"""Command `preceptor data check`."""

from __future__ import annotations

from dataclasses import replace

from preceptor.cli.options import ManifestPath


def data_check(manifest: ManifestPath) -> None:
    """Check a manifest and print a summary.

    All images and maps are decoded; all problems are listed by row.
    """
    from rich.console import Console

    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.cli.data_output import print_summary
        from preceptor.data.decode_pass import DecodePass
        from preceptor.data.manifest import Manifest
        from preceptor.data.notes import notes, value_notes
        from preceptor.runtime.progress import progress

    with progress() as bar, DecodePass() as decoding:
        task = bar.add_task("reading images", total=None, note="")
        table = Manifest.read(
            manifest,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            decoding=decoding,
        )
    # Sizes and hashes are those of the pass, so that no file is read again for them.
    print_summary(table, Console(), decoding.image_sizes)
    checked = replace(table, contents=decoding.contents)
    for note in [*notes(checked), *value_notes(checked)]:
        print(f"note: {note}")
