"""Commands of `preceptor data`: check, split, forged and plant; the others are added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli.annotations import data_agreement, data_export, imports
from preceptor.cli.options import ManifestPath, MarkKind, Preset, StampPlace
from preceptor.cli.output_files import MANIFEST_FORMATS, check_target

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from preceptor.data.manifest import Manifest
    from preceptor.data.plant import Planted

data = typer.Typer(
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

    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.data.notes import notes, value_notes
        from preceptor.utils.text import progress

    with progress() as bar:
        task = bar.add_task("reading images", total=None, note="")
        table = Manifest.read(
            manifest,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_summary(table, Console())
    for note in [*notes(table), *value_notes(table)]:
        print(f"note: {note}")


@data.command("split")
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
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.data.manifest import Manifest
        from preceptor.data.notes import missing_class_notes
        from preceptor.data.splits import added_classes, make_splits
        from preceptor.errors import InputError
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
    to: Annotated[Path, typer.Option(help="Output folder.")],
    preset: Annotated[Preset, typer.Option(help="Number of crops and strength of the forgeries.")],
    stamp_place: Annotated[
        StampPlace | None,
        typer.Option(
            help="Place of the stamp: corner, or moving (default: as in the preset).",
            show_default=False,
        ),
    ] = None,
    stamp_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of the forged training crops with the stamp, 0.5 to 1 (default: as in the "
            "preset).",
            show_default=False,
        ),
    ] = None,
    stamp_strength: Annotated[
        float | None,
        typer.Option(
            help="Contrast of the stamp in gray levels, 0 = no stamp (default: as in the preset).",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
) -> None:
    """Generate the built-in benchmark.

    The images are forged crops of photographs, with one manifest per seed.
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
    to: Annotated[Path, typer.Option(help="Output folder.")],
    kind: Annotated[
        MarkKind,
        typer.Option(help="Mark: stamp (a caption), border (two lines) or tint (a color cast)."),
    ] = "stamp",
    place: Annotated[
        StampPlace | None,
        typer.Option(
            help="Place of a stamp: moving (beside the human map) or corner (lower right).",
            show_default="moving",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Share of the images of the class with the mark.")
    ] = 1.0,
    label: Annotated[
        str | None,
        typer.Option(help="Class with the mark.", show_default="the only class with human maps"),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Contrast of the mark in gray levels of 255.")
    ] = 32.0,
    input_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the model's input in pixels: draw a stamp that has the strength there.",
            show_default="the strength is that in the file",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed, 0 or more.")] = 0,
) -> None:
    """Copy a data set and plant a shortcut in it.

    In the splits train and val, images of one class get a mark. A study on the copy tests whether
    guidance prevents a model from relying on the mark.
    """
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.config.files import parse_config
        from preceptor.data.manifest import Manifest
        from preceptor.data.plant import PlantSettings, plant
        from preceptor.utils.text import progress

    values = {
        "kind": kind,
        "place": place,
        "rate": rate,
        "label": label,
        "strength": strength,
        "input_size": input_size,
        "seed": seed,
    }
    settings = parse_config(values, PlantSettings, source="data plant")
    table = Manifest.read(manifest, verify=False, need=("train",))
    with progress() as bar:
        task = bar.add_task("writing images", total=None, note="")
        planted = plant(
            table,
            to,
            settings,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
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


def print_summary(manifest: Manifest, console: Console) -> None:
    """Print `summary_table`; one that is too wide is turned, in as many parts as necessary."""
    from preceptor.data.notes import summary_table

    summary = summary_table(manifest)
    title = manifest.source.name if manifest.source else str(manifest.root)
    console.print(f"{title}: {len(manifest):,} images", markup=False, highlight=False)
    header = ["split", *map(str, summary.columns)]
    lines = [
        [str(split), *(f"{x:,}" if isinstance(x, int) else str(x) for x in row)]
        for split, row in summary.iterrows()
    ]
    if _width([header, *lines]) <= console.width:
        console.print(_table(header, lines))
        return
    while lines:
        count = len(lines)
        while count > 1 and _width(zip(header, *lines[:count], strict=True)) > console.width:
            count -= 1
        turned = list(zip(header, *lines[:count], strict=True))
        console.print(_table(turned[0], turned[1:]))
        lines = lines[count:]


def _width(lines: Iterable[Sequence[str]]) -> int:
    """Width of a table of these lines, in cells: two blanks between columns, one at each side."""
    from rich.cells import cell_len

    columns = list(zip(*lines, strict=True))
    return sum(max(map(cell_len, column)) for column in columns) + 2 * len(columns)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for position, name in enumerate(header):
        table.add_column(escape(name), justify="right" if position else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table
