"""Command `preceptor data split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import ManifestPath
from preceptor.cli.output_files import MANIFEST_FORMATS, check_target


def data_split(
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option(help="Output manifest, .csv or .parquet.")],
    train: Annotated[float, typer.Option(help="Share of the training split.")] = 0.6,
    val: Annotated[float, typer.Option(help="Share of the validation split.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the test split.")] = 0.2,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            help="SOURCE=SPLIT: assign all images of a source to a split such as val-unseen or "
            "test-unseen; images of missing classes are added from other sources. Repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed, 0 or more.")] = 0,
) -> None:
    """Divide a manifest into splits.

    Splits are stratified by label and source. Groups are not divided; sources can be held out. A
    column `split` of the manifest is replaced.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.data.notes import missing_class_notes
        from preceptor.data.splits import added_classes, make_splits
        from preceptor.errors import InputError
        from preceptor.evaluation.split_names import kind_or_none

    check_target("--to", to, formats=MANIFEST_FORMATS)
    held: dict[str, str] = {}
    for item in hold_out or []:
        source, separator, split = item.rpartition("=")
        if not separator:
            raise InputError(f"--hold-out {item!r}: write SOURCE=SPLIT")
        held[source] = split
    shares: dict[str, float] = {"train": train, "val": val, "test": test}
    for kind, share in shares.items():
        if not share and all(kind_or_none(split) != kind for split in held.values()):
            other = "" if kind == "train" else f", or add --hold-out SOURCE={kind}-NAME"
            raise InputError(
                f"--{kind} 0: no image would be in a {kind} split; set a share above 0{other}"
            )
    table = Manifest.read_unsplit(manifest)
    frame = make_splits(table, {name: share for name, share in shares.items() if share}, seed, held)
    made = Manifest.from_frame(frame, table.root)
    made.write(to)
    counts = frame["split"].value_counts()
    print(f"wrote {to}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    for name, added in added_classes(frame, held).items():
        images = ", ".join(f"{count:,} of {label}" for label, count in added.items())
        print(f"{name}: images of missing classes were added from other sources ({images})")
    for note in missing_class_notes(made):
        print(f"note: {note}")
