"""Commands of `preceptor data import | export | agreement`."""

# No postponed annotations: the signatures of the imports are put together from those of the
# readers below, and typer evaluates no text in them.

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.cli.options import (
    MANIFEST_FORMATS,
    Commands,
    Number,
    check_target,
    counting,
    documented,
)
from preceptor.errors import InputError
from preceptor.utils.plugins import load_plugin, plugin, registered
from preceptor.utils.process import bulk_import

if TYPE_CHECKING:
    from preceptor.annotations.shapes import ImportedAnnotations

imports = Commands(
    help="Import annotations of other tools, and published data sets.", no_args_is_help=True
)
Format = Literal["masks", "coco", "labelstudio", "labelme", "cvat"]
Reader = Callable[..., "ImportedAnnotations"]
Sources = Annotated[list[Path], typer.Argument(help="File or folder of the annotations.")]
Images = Annotated[
    Path | None, typer.Option(help="Folder of the images (default: that of SOURCE).")
]
Classes = list[str] | None


def _coco(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """COCO instances: boxes, polygons and run-length encoded masks."""
    from preceptor.annotations import read_coco

    return read_coco(source)


def _cvat(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """CVAT for images 1.1 (XML): boxes, polygons, lines, ellipses, points and masks."""
    from preceptor.annotations import read_cvat

    return read_cvat(_one(source))


def _fixations(
    source: Sources,
    images: Annotated[Path, typer.Option()],
    sigma: Annotated[float, Number()],
    display: str | None = None,
) -> "ImportedAnnotations":
    """Fixations of an eye tracker: CSV with image, x, y[, duration, annotator, label].

    Args:
        images: Folder of the images.
        sigma: Standard deviation of the Gaussian of a fixation in pixels of the screen.
        display: LEFT,TOP,WIDTH,HEIGHT of the image on the screen in pixels (default: positions are
            on the image itself).
    """
    from preceptor.annotations.tables import Gaze, parse_display, read_fixations

    gaze = Gaze(sigma, parse_display(display) if display else None)
    return read_fixations(_one(source), images, gaze)


def _folders(
    source: Sources, images: Images = None, masks: Path | None = None
) -> "ImportedAnnotations":
    """Class folders with images, and masks in the same subfolders of --masks.

    Args:
        masks: Folder of masks in the same subfolders; if it is SOURCE, a_mask.png is that of a.png.
    """
    from preceptor.annotations import read_folders

    return read_folders(_one(source), masks)


def _labelme(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """LabelMe (JSON): polygons, rectangles, circles, lines, points and masks."""
    from preceptor.annotations import read_labelme

    return read_labelme(source)


def _labelstudio(
    source: Sources,
    images: Images = None,
    image_key: Annotated[str, typer.Option(show_default=False)] = "",
) -> "ImportedAnnotations":
    """Label Studio (JSON): rectangles, polygons, ellipses, brush and keypoints.

    Args:
        image_key: Key of the image in the data of a task (default: detected).
    """
    from preceptor.annotations import read_labelstudio

    return read_labelstudio(source, image_key=image_key)


def _masks(
    source: Sources, images: Annotated[Path, typer.Option()], mask_label: str = "positive"
) -> "ImportedAnnotations":
    """A folder of mask images: binary, gray, palette or one color per class.

    Args:
        images: Folder of the images.
        mask_label: Class of masks without colors.
    """
    from preceptor.annotations import read_masks

    return read_masks(_one(source), images, label=mask_label)


def _voc(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """Pascal VOC: XML boxes and segmentation PNGs."""
    from preceptor.annotations import read_voc

    return read_voc(_one(source))


def _yolo(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """YOLO text files: boxes, segments and oriented boxes, with data.yaml."""
    from preceptor.annotations import read_yolo

    return read_yolo(_one(source), images)


FORMATS: dict[str, Reader] = {
    "coco": _coco,
    "cvat": _cvat,
    "fixations": _fixations,
    "folders": _folders,
    "labelme": _labelme,
    "labelstudio": _labelstudio,
    "masks": _masks,
    "voc": _voc,
    "yolo": _yolo,
}
"""Readers by format: their options precede the common ones of `_write`."""


def _one(source: list[Path]) -> Path:

    if len(source) != 1:
        raise InputError(f"{len(source)} sources are given; this format has one file or folder")
    return source[0]


def _write(
    imported: "ImportedAnnotations",
    images: Path,
    *,
    to: Annotated[Path, typer.Option()],
    labels: Path | None = None,
    positive: Classes = None,
    negative: str = "negative",
    unmarked: Literal["examined", "unknown"] | None = None,
    nothing_to_mark: Classes = None,
    line_width: Annotated[float, Number(min=0.1)] = 3.0,
    point_radius: Annotated[float, Number(min=0.1)] = 5.0,
    merge: Literal["mean", "majority", "any"] = "mean",
    split: str | None = None,
    group_by: Annotated[str, typer.Option(show_default=False)] = "",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write a manifest and maps; the parameters after `*` are options of all formats.

    Args:
        to: Output folder, new or empty.
        labels: CSV with path,label[,split,source,group,annotated] (default: labels from the
            annotations).
        positive: Class of the shapes to draw; images with one have this label. Repeatable (default:
            all classes).
        negative: Label of images without a shape of these classes.
        unmarked: Images without a shape: examined (nothing to mark) or unknown (not examined).
        nothing_to_mark: Label whose images without a shape were examined; others were not.
            Repeatable.
        line_width: Width of lines in pixels.
        point_radius: Radius of points in pixels.
        merge: Map of several annotators: mean, majority or any.
        split: Shares of train, val and test, such as 0.7,0.15,0.15 (default: the splits of SOURCE).
        group_by: Column of --labels, or regular expression on the path of the image, that names
            images of one subject.
        seed: Random seed of the splits.
    """
    from preceptor.annotations.shapes import RasterOptions
    from preceptor.annotations.write import ImportOptions, parse_split, write_import

    options = ImportOptions(
        RasterOptions(line_width, point_radius),
        labels,
        tuple(positive or ()),
        negative,
        unmarked,
        tuple(nothing_to_mark or ()),
        merge,
        parse_split(split) if split else {},
        group_by,
        seed,
    )
    with counting("writing maps") as told:
        summary = write_import(imported, images, to, options, told)
    print(f"wrote {to / 'manifest.csv'}: {summary.images:,} images, {summary.maps:,} with a map")
    if summary.annotators:
        print(f"annotators: {', '.join(summary.annotators)}")
    for note, count in summary.notes.items():
        print(f"note: {note} ({count:,})")
    if count := summary.without_split:
        print(
            f"note: {count:,} image{' is' if count == 1 else 's are'} in no split; add --split "
            "0.7,0.15,0.15, or use data split"
        )


def _command(read: Reader) -> Callable[..., None]:
    """Command of a format: the options of its reader, then those of `_write`."""
    own = inspect.signature(documented(read)).parameters
    common = inspect.signature(documented(_write)).parameters.values()
    options = [one for one in common if one.kind is inspect.Parameter.KEYWORD_ONLY]

    def run(**values: Any) -> None:
        with bulk_import():
            import preceptor.annotations  # noqa: F401  # and torch

        imported = read(**{name: values[name] for name in own})
        first = values["source"][0]
        folder = values["images"] or (first if first.is_dir() else first.parent)
        _write(imported, folder, **{one.name: values[one.name] for one in options})

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.values()]
    # typer reads the options of a command from its signature.
    run.__signature__ = inspect.Signature([*parameters, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in [*parameters, *options]}
    run.__doc__ = (read.__doc__ or "").partition("\n")[0]
    return run


def _of_plugin(name: str) -> Reader:
    """Reader of a plugin, which is imported when it is called."""

    def read(source: Sources, images: Images = None) -> "ImportedAnnotations":
        found = plugin("preceptor.importers", name)  # an error if several packages offer it
        assert found is not None
        return load_plugin(found)(_one(source), images)  # type: ignore[no-any-return]

    read.__doc__ = f"{name}, the format of a plugin."
    return read


for _name, _read in FORMATS.items():
    imports.command(_name)(_command(_read))
for _name in registered("preceptor.importers"):
    if _name not in FORMATS:
        imports.command(_name)(_command(_of_plugin(_name)))


@imports.command("und")
def import_und(
    train: Annotated[Path, typer.Option()],
    images: Annotated[Path, typer.Option()],
    heatmaps: Annotated[Path, typer.Option()],
    to: Annotated[Path, typer.Option()],
    test: list[Path] | None = None,
    join: str | None = None,
) -> None:
    """Import the UND CYBORG release in its published form.

    Args:
        train: Training CSV without header: split, class, path.
        images: Folder of the images.
        heatmaps: Folder of heat maps with the same file names.
        to: Output manifest, .csv or .parquet.
        test: CSV of a test set. Repeatable.
        join: Name of one test set of all test CSVs, each of which is a source, such as test-unseen
            (default: a test set for each CSV).
    """
    from preceptor.annotations import read_und

    check_target("--to", to, formats=MANIFEST_FORMATS)
    table = read_und(train, test or [], images, heatmaps, join=join)
    table.write(to)
    print(f"wrote {to}: {len(table):,} images")


def data_export(
    format_: Annotated[Format, typer.Argument(metavar="FORMAT")],
    source: Annotated[Path, typer.Argument(metavar="MANIFEST|STORE")],
    to: Annotated[Path, typer.Option()],
    manifest: Path | None = None,
    threshold: Annotated[float | None, Number(min=0.001, max=1)] = None,
    positive: Classes = None,
    image_prefix: str = "/data/local-files/?d=",
    every: Annotated[bool, typer.Option("--all")] = False,
) -> None:
    """Export maps to another tool.

    The human maps of a manifest, or a Teacher's maps, are written as annotations to be corrected.
    labels.csv has the columns that the format lacks: give it to data import with --labels.

    Args:
        format_: masks, coco, labelstudio, labelme or cvat.
        source: Manifest, or a Teacher's map store.
        to: Output folder, new or empty.
        manifest: Manifest of the images of a map store.
        threshold: Smallest value of the map, 0 to 1, of a pixel inside a shape (default: 0.5;
            format masks of a manifest: gray levels are kept).
        positive: Class whose maps are exported; images of other classes have no shapes. Repeatable
            (default: all classes).
        image_prefix: Address before the names of the images in Label Studio.
        every: Export also images of a manifest that nobody examined.
    """
    with bulk_import():
        from preceptor.annotations.export import (
            ExportOptions,
            manifest_images,
            store_images,
            unsettled,
            write_export,
        )
        from preceptor.data.manifest import Manifest
        from preceptor.maps.store import is_store, read_store

    stored = source.is_dir()
    for wrong, message in (
        (
            stored and not is_store(source),
            f"{source}: neither a manifest nor a map store; name one of them",
        ),
        (
            stored and manifest is None,
            f"{source} is a map store; name the manifest of its images by --manifest",
        ),
        (
            not stored and manifest is not None,
            "--manifest belongs to a map store; a manifest is exported by itself",
        ),
        (stored and every, "--all belongs to a manifest; of a map store all images are exported"),
    ):
        if wrong:
            raise InputError(message)
    table = Manifest.read(manifest or source, verify=False, need=())
    classes, model, noise = positive or (), "", 0
    with counting("exporting") as told:
        if stored:
            store = read_store(source, columns=("map", "class", "score", "error"))
            noise = unsettled(store, classes)
            model = f"{store.info.teacher} {store.info.method}"
            images = store_images(store, table, positive=classes, progress=told)
            threshold = 0.5 if threshold is None else threshold
        else:
            images = manifest_images(table, every=every, positive=classes, progress=told)
        options = ExportOptions(threshold, model, image_prefix)
        count, marked = write_export(format_, images, to, options)
    print(f"wrote {to}: {count:,} images, {marked:,} with marks")
    if noise:
        print(f"{noise:,} maps did not reach the tolerance and were left out")


def data_agreement(
    folder: Path, to: Path | None = None, images: Annotated[int, typer.Option(min=0, max=500)] = 24
) -> None:
    """Compare annotators of the same images.

    A page and CSV tables are written: Dice, IoU and correlation of each pair, each annotator
    against the others, and the images with the least agreement.

    Args:
        folder: Folder written by data import: manifest.csv, annotators/NAME/….
        to: Output folder of the page and its tables (default: agreement in FOLDER).
        images: Number of images with pictures.
    """
    with bulk_import():
        from preceptor.annotations.agreement import agreement_of, read_annotators
        from preceptor.report.annotators import PAGE, write_agreement
        from preceptor.utils.text import number

    maps = read_annotators(folder)
    with counting("comparing maps") as told:
        agreement = agreement_of(maps, progress=told)
    target = to or folder / "agreement"
    findings = write_agreement(maps, agreement, target, images)
    pairs: Any = agreement.pairs
    for pair in pairs.itertuples():
        print(
            f"{pair.a} – {pair.b}: {pair.images:,} images, Dice {number(pair.dice)}, IoU "
            f"{number(pair.iou)}, correlation {number(pair.correlation)}"
        )
    for sentence in findings:
        print(sentence)
    print(f"wrote {target / PAGE}")
