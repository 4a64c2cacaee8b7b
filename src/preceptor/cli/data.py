"""Commands of `preceptor data`: check, split, import, export, agreement, forged and plant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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
    from preceptor.annotations import ImportedAnnotations

Format = Literal["masks", "coco"]
data = Commands(
    help="Check, split, import and export manifests; make built-in images; compare annotators.",
    no_args_is_help=True,
)


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
    summary = summary_table(table)
    print(f"{manifest.name}: {len(table):,} images")
    lines = [
        [str(split), *(f"{x:,}" if isinstance(x, int) else str(x) for x in row)]
        for split, row in summary.iterrows()
    ]
    columns = [str(one) for one in summary.columns]
    print_table(["split", *columns], lines, Console(), right=columns)
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


# Options of `data import` that belong to one format.
_OF_FORMATS = {
    "masks": "folders",
    "heatmaps": "und",
    "join": "und",
}
_REQUIRED = {"masks": ("images",), "und": ("images", "heatmaps")}
_OF_UND = {"format_", "source", "images", "to", "heatmaps", "join"}


@data.command("import")
def data_import(
    context: typer.Context,
    format_: Annotated[str, typer.Argument(metavar="FORMAT")],
    source: Annotated[list[Path], typer.Argument(metavar="SOURCE...")],
    to: Annotated[Path, typer.Option()],
    images: Annotated[Path | None, typer.Option(show_default="the folder of SOURCE")] = None,
    labels: Annotated[Path | None, typer.Option(show_default="from the annotations")] = None,
    positive: Annotated[list[str] | None, typer.Option(show_default="all classes")] = None,
    negative: str = "negative",
    unmarked: Literal["examined", "unknown"] | None = None,
    nothing_to_mark: list[str] | None = None,
    split: Annotated[str | None, typer.Option(show_default="the splits of SOURCE")] = None,
    group_by: Annotated[str, typer.Option(show_default=False)] = "",
    masks: Path | None = None,
    heatmaps: Path | None = None,
    join: Annotated[str | None, typer.Option(show_default="a test set for each CSV")] = None,
) -> None:
    """Import annotations of another tool, or a published data set.

    A manifest and maps are written. FORMAT is one of these:

    \b
    coco         COCO: boxes, polygons, run-length encoded masks, key points
    cvat         CVAT for images 1.1 (XML): all shapes and masks
    folders      class folders with images, and masks in the same subfolders
    labelme      LabelMe (JSON): all shapes and masks
    labelstudio  Label Studio (JSON): rectangles, polygons, ellipses, brush, keypoints
    masks        folder of mask images: 0 outside and 255 inside, or gray maps
    voc          Pascal VOC: XML boxes and polygons
    yolo         YOLO text files: boxes, segments, oriented boxes, with data.yaml
    points       CSV with path,x,y and label or not: a click on the evidence each
    und          UND CYBORG release: CSVs of training and tests, and heat maps

    Args:
        source: File or folder of the annotations; several for coco, labelme and labelstudio. For
            und, the training CSV, then the test CSVs.
        to: Output folder, new or empty; for und, the output manifest, .csv or .parquet.
        images: Folder of the images; masks and und require it.
        labels: CSV with path,label[,split,source,group,annotated].
        positive: Class of the shapes to draw; images with one have this label, or the label
            positive if several are given. Repeatable.
        negative: Label of images without a shape of these classes.
        unmarked: Images without a shape: examined (nothing to mark) or unknown (not examined).
        nothing_to_mark: Label whose images without a shape were examined; others were not.
            Repeatable.
        split: Shares of train, val and test, such as 0.7,0.15,0.15.
        group_by: Regular expression on the path of the image, whose first parentheses name the
            subject; or give --labels with a column group.
        masks: folders: folder of masks in the same subfolders; if it is SOURCE, a_mask.png is the
            mask of a.png.
        heatmaps: und, required: folder of heat maps with the names of the images.
        join: und: name of one test set for all test CSVs, such as test-unseen; each CSV is a
            source.
    """
    for name in context.params:
        origin = context.get_parameter_source(name)
        given = origin is not None and origin.name == "COMMANDLINE"
        option, owner = f"--{name.replace('_', '-')}", _OF_FORMATS.get(name, format_)
        if given and (owner != format_ or (format_ == "und" and name not in _OF_UND)):
            other = f"belongs to {owner}" if owner != format_ else "is of the other formats"
            raise InputError(f"data import {format_}: {option} {other}; leave it out")
    names = [name for name in _REQUIRED.get(format_, ()) if context.params[name] is None]
    if names:
        raise InputError(f"data import {format_}: add --{' and --'.join(names)}")
    if format_ == "und":
        check_target("--to", to, formats=MANIFEST_FORMATS)
    with bulk_import():
        from preceptor import annotations
        from preceptor.annotations.write import parse_split

    if format_ == "und":
        assert images is not None
        table = annotations.read_und(source[0], source[1:], images, heatmaps, join=join)
        table.write(to)
        print(f"wrote {to}: {len(table):,} images")
        return
    imported = _read(format_, source, images, context.params)
    options = annotations.ImportOptions(
        labels,
        tuple(positive or ()),
        negative,
        unmarked,
        tuple(nothing_to_mark or ()),
        parse_split(split) if split else {},
        group_by,
    )
    folder = images or (source[0] if source[0].is_dir() else source[0].parent)
    with counting("writing maps") as told:
        summary = annotations.write_import(imported, folder, to, options, told)
    print(f"wrote {to / 'manifest.csv'}: {summary.images:,} images, {summary.maps:,} with a map")
    if summary.annotators:
        print(f"annotators: {', '.join(summary.annotators)}")
    for note, count in summary.notes.items():
        print(f"note: {note} ({count:,})")
    if not summary.maps:
        print("note: no image has a map; check that masks have the names of their images")
    if count := summary.without_split:
        print(
            f"note: {count:,} image{' is' if count == 1 else 's are'} in no split; add --split "
            "0.7,0.15,0.15, or use data split"
        )


def _read(
    format_: str, source: list[Path], images: Path | None, given: dict[str, Any]
) -> ImportedAnnotations:
    """Annotations of a format; `given` has the options."""
    from preceptor import annotations

    of_several: dict[str, Callable[[list[Path]], ImportedAnnotations]] = {
        "coco": annotations.read_coco,
        "labelme": annotations.read_labelme,
        "labelstudio": annotations.read_labelstudio,
    }
    of_one: dict[str, Callable[[Path], ImportedAnnotations]] = {
        "cvat": annotations.read_cvat,
        "folders": lambda path: annotations.read_folders(path, given["masks"]),
        "masks": lambda path: annotations.read_masks(path, images or path),
        "points": annotations.read_points,
        "voc": annotations.read_voc,
        "yolo": lambda path: annotations.read_yolo(path, images),
    }
    if format_ in of_several:
        return of_several[format_](source)
    if format_ not in of_one:
        known = ", ".join(sorted({*of_several, *of_one, "und"}))
        raise InputError(f"data import {format_}: choose one of {known}")
    if len(source) != 1:
        raise InputError(f"{len(source)} sources are given; this format has one file or folder")
    return of_one[format_](source[0])


@data.command("export")
def data_export(
    format_: Annotated[Format, typer.Argument(metavar="FORMAT")],
    manifest: ManifestPath,
    to: Annotated[Path, typer.Option()],
) -> None:
    """Export human maps to another tool.

    The human maps of a manifest are written as annotations to be corrected. labels.csv has the
    columns that the format lacks: give it to data import with --labels.

    Args:
        format_: masks or coco, which most tools read.
        to: Output folder, new or empty.
    """
    with bulk_import():
        from preceptor.annotations.export import manifest_images, write_export
        from preceptor.data.manifest import Manifest

    table = Manifest.read(manifest, verify=False, need=())
    with counting("exporting") as told:
        count, marked = write_export(format_, manifest_images(table, progress=told), to)
    print(f"wrote {to}: {count:,} images, {marked:,} with marks")


@data.command("agreement")
def data_agreement(
    folder: Path,
    to: Annotated[Path | None, typer.Option(show_default="agreement in FOLDER")] = None,
) -> None:
    """Compare annotators of the same images.

    Two tables are written: Dice, IoU and correlation of each pair, and of each image, sorted from
    the least agreement.

    Args:
        folder: Folder written by data import, with annotators/NAME/….
        to: Output folder of the tables.
    """
    with bulk_import():
        from preceptor.annotations.agreement import agreement_of, read_annotators, write_agreement
        from preceptor.utils.text import number

    maps = read_annotators(folder)
    with counting("comparing maps") as told:
        agreement = agreement_of(maps, progress=told)
    target = to or folder / "agreement"
    write_agreement(maps, agreement, target)
    for pair in agreement.pairs.to_dict("records"):
        values = {"Dice": pair["dice"], "IoU": pair["iou"], "correlation": pair["correlation"]}
        shown = ", ".join(f"{name} {number(value)}" for name, value in values.items())
        print(f"{pair['a']} – {pair['b']}: {pair['images']:,} images, {shown}")
    print(f"wrote {target}")


@data.command("forged")
def data_forged(
    to: Annotated[Path, typer.Option()],
    preset: Annotated[Preset, typer.Option()],
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    first: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Generate the built-in benchmark.

    The images are forged crops of photographs, with one manifest per seed.

    Args:
        to: Output folder.
        preset: Number of crops and strength of the forgeries.
        seeds: Number of draws.
        first: Seed of the first draw.
    """
    from preceptor.benchmark.forged import write_draws
    from preceptor.benchmark.forgeries import PRESETS

    pattern = write_draws(to, PRESETS[preset], range(first, first + seeds))
    print(f"wrote {seeds} draw{'s' if seeds > 1 else ''}: {pattern}")


@data.command("decoys")
def data_decoys(
    to: Annotated[Path, typer.Option()],
    draws: Annotated[int, typer.Option(min=1)] = 1,
    first: Annotated[int, typer.Option(min=0)] = 0,
    classes: int = 10,
    place: StampPlace = "moving",
    source: str = "digits",
    images: Annotated[int, typer.Option(min=20)] = 3000,
    exact: bool = False,
) -> None:
    """Generate objects with a decoy.

    A patch beside each object tells the class in train and val, and is random in val-noshort and
    test. The masks of the objects are the human maps.

    Args:
        to: Output folder.
        draws: Number of independent draws.
        first: Seed of the first draw.
        classes: Number of classes, 2 to 10.
        place: Place of the patch: moving (beside the object) or corner (lower right).
        source: Objects: digits, fashion (of the Debian package dataset-fashion-mnist), or a folder
            with the files of Fashion-MNIST.
        images: Number of training images.
        exact: Write the published Decoy-MNIST images instead: 28 pixels, black canvas, a patch in a
            random corner; all objects of the source.
    """
    from preceptor.benchmark.decoys import DecoySettings, write_decoys
    from preceptor.benchmark.forged import write_draws
    from preceptor.config.files import parse_config

    values = {"source": source, "classes": classes, "place": place, "train": images, "exact": exact}
    settings = parse_config(values, DecoySettings, source="data decoys")
    pattern = write_draws(to, settings, range(first, first + draws), write_decoys)
    print(f"wrote {draws} draw{'s' if draws > 1 else ''}: {pattern}")


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
    """Plant a shortcut in a data set.

    A manifest is written in which images of one class in the splits train and val have a stamp, a
    caption of a few glyphs. A study on it tests whether guidance prevents a model from relying on
    the stamp. The other images stay where they are.

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
    settings = planted.settings
    print(f"wrote {planted.manifest}: {planted.images:,} images")
    for split, (count, marked) in planted.splits.items():
        if count:
            part = f"{marked:,} of {count:,} images of class {settings.label}"
            print(f"{split}: {part} have a stamp")
    if left := len(planted.no_place):
        print(f"note: images whose human map leaves no place for a stamp: {left:,}")
    if not planted.clean_validation:
        print("note: no validation set is without the shortcut; add one to select α, as val-clean")
