"""Commands of `preceptor data`: check, split, forged and plant; the others are added."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli.annotations import data_agreement, data_export, imports
from preceptor.cli.options import (
    MANIFEST_FORMATS,
    Commands,
    ManifestPath,
    Preset,
    StampPlace,
    check_target,
    counting,
)
from preceptor.errors import InputError
from preceptor.utils.process import bulk_import

if TYPE_CHECKING:
    from preceptor.data.plant import Planted

data = Commands(
    help="Check, split, copy, import and export manifests; compare annotators.",
    no_args_is_help=True,
)
data.add_typer(imports, name="import")
data.command("agreement")(data_agreement)
data.command("export")(data_export)


@data.command("check")
def data_check(manifest: ManifestPath) -> None:
    """Check a manifest and print a summary.

    All images and maps are decoded; all problems are listed by row.
    """
    from rich.console import Console

    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.data.notes import notes, summary_table, value_notes
        from preceptor.utils.text import print_table

    with counting("reading images") as told:
        table = Manifest.read(manifest, progress=told)
    console, summary = Console(), summary_table(table)
    console.print(f"{manifest.name}: {len(table):,} images", markup=False, highlight=False)
    lines = [
        [str(split), *(f"{x:,}" if isinstance(x, int) else str(x) for x in row)]
        for split, row in summary.iterrows()
    ]
    columns = [str(one) for one in summary.columns]
    print_table(["split", *columns], lines, console, right=columns)
    for note in [*notes(table), *value_notes(table)]:
        print(f"note: {note}")


@data.command("split")
def data_split(
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option()],
    train: float = 0.6,
    val: float = 0.2,
    test: float = 0.2,
    hold_out: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Divide a manifest into splits.

    Splits are stratified by label and source. Groups are not divided; sources can be held out. A
    column `split` of the manifest is replaced.

    Args:
        to: Output manifest, .csv or .parquet.
        train: Share of the training split.
        val: Share of the validation split.
        test: Share of the test split.
        hold_out: SOURCE=SPLIT: assign all images of a source to a split such as val-unseen or
            test-unseen; images of missing classes are added from other sources. Repeatable.
        seed: Random seed, 0 or more.
    """
    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.data.notes import missing_class_notes
        from preceptor.data.splits import added_classes, make_splits
        from preceptor.metrics.split_names import kind_or_none

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


@data.command("forged")
def data_forged(
    to: Annotated[Path, typer.Option()],
    preset: Annotated[Preset, typer.Option()],
    stamp_place: StampPlace | None = None,
    stamp_rate: float | None = None,
    stamp_strength: float | None = None,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    first: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Generate the built-in benchmark.

    The images are forged crops of photographs, with one manifest per seed.

    Args:
        to: Output folder.
        preset: Number of crops and strength of the forgeries.
        stamp_place: Place of the stamp: corner, or moving (default: as in the preset).
        stamp_rate: Share of the forged training crops with the stamp, 0.5 to 1 (default: as in the
            preset).
        stamp_strength: Contrast of the stamp in gray levels, 0 = no stamp (default: as in the
            preset).
        seeds: Number of draws.
        first: Seed of the first draw.
    """
    from preceptor.benchmark.forged import write_draws
    from preceptor.benchmark.forgeries import PRESETS, ForgedSettings

    given = {"stamp_place": stamp_place, "stamp_rate": stamp_rate, "stamp_strength": stamp_strength}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = PRESETS[preset]
    if changes:
        from preceptor.config.files import parse_config

        values = settings.model_dump() | changes
        settings = parse_config(values, ForgedSettings, source=f"--preset {preset}")
    pattern = write_draws(to, settings, range(first, first + seeds))
    print(f"wrote {seeds} draw{'s' if seeds > 1 else ''}: {pattern}")


@data.command("plant")
def data_plant(
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option()],
    place: StampPlace = "moving",
    rate: float = 1.0,
    label: Annotated[
        str | None, typer.Option(show_default="the only class with human maps")
    ] = None,
    strength: float = 32.0,
    seed: int = 0,
) -> None:
    """Copy a data set and plant a shortcut in it.

    In the splits train and val, images of one class get a stamp, a caption of a few glyphs. A study
    on the copy tests whether guidance prevents a model from relying on the stamp.

    Args:
        to: Output folder.
        place: Place of the stamp: moving (beside the human map) or corner (lower right).
        rate: Share of the images of the class with the stamp.
        label: Class with the stamp.
        strength: Contrast of the stamp in gray levels of 255.
        seed: Random seed, 0 or more.
    """
    with bulk_import():
        from preceptor.config.files import parse_config
        from preceptor.data.manifest import Manifest
        from preceptor.data.plant import PlantSettings, plant

    values = {"place": place, "rate": rate, "label": label, "strength": strength, "seed": seed}
    settings = parse_config(values, PlantSettings, source="data plant")
    table = Manifest.read(manifest, verify=False, need=("train",))
    with counting("writing images") as told:
        planted = plant(table, to, settings, progress=told)
    _print_planted(planted)


def _print_planted(planted: Planted) -> None:
    """Print what `plant` has written."""
    settings = planted.settings
    print(f"wrote {planted.manifest}: {planted.images:,} images")
    for counts in planted.splits:
        if not counts.images:
            continue
        print(
            f"{counts.split}: {counts.marked:,} of {counts.images:,} images of class "
            f"{settings.label} have a stamp"
        )
    if left := len(planted.no_place):
        print(
            f"note: {left:,} image{'s' if left > 1 else ''} got no stamp, because the human map "
            "leaves no place for a stamp"
        )
    if over := sum(counts.touch_map for counts in planted.splits):
        print(f"note: {over:,} stamp{'s lie' if over > 1 else ' lies'} on a human map")
    if not planted.clean_validation:
        print(
            "note: no validation set is without the shortcut; add one, such as val-clean, for the "
            "selection of α"
        )
