"""Commands of `preceptor data import | export | agreement`."""

# No postponed annotations: the signatures of the imports are put together from those of the
# readers below, and typer evaluates no text in them.

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.cli.options import finite
from preceptor.cli.output_files import MANIFEST_FORMATS, check_target
from preceptor.utils.plugins import load_plugin, plugin, registered

if TYPE_CHECKING:
    from preceptor.annotations.shapes import ImportedAnnotations

imports = typer.Typer(
    help="Import annotations of other tools, and published data sets.", no_args_is_help=True
)
Format = Literal["masks", "coco", "labelstudio", "labelme", "cvat"]
Reader = Callable[..., "ImportedAnnotations"]
Sources = Annotated[list[Path], typer.Argument(help="File or folder of the annotations.")]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of the images (default: that of SOURCE).", show_default=False),
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
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    sigma: Annotated[
        float,
        typer.Option(help="Standard deviation of the Gaussian of a fixation.", callback=finite),
    ],
    sigma_unit: Annotated[
        Literal["pixels", "degrees"],
        typer.Option(help="Unit of --sigma: pixels of the screen, or degrees of visual angle."),
    ] = "pixels",
    pixels_per_degree: Annotated[
        float | None,
        typer.Option(help="Pixels of the screen per degree.", show_default=False, callback=finite),
    ] = None,
    positions: Annotated[
        Literal["pixels", "shares"], typer.Option(help="Unit of x and y; shares are from 0 to 1.")
    ] = "pixels",
    display: Annotated[
        str | None,
        typer.Option(
            help="LEFT,TOP,WIDTH,HEIGHT of the image on the screen in pixels (default: positions "
            "are on the image itself).",
            show_default=False,
        ),
    ] = None,
    screen: Annotated[
        str | None,
        typer.Option(
            help="WIDTH,HEIGHT of the screen in pixels, for shares with --display.",
            show_default=False,
        ),
    ] = None,
) -> "ImportedAnnotations":
    """Fixations of an eye tracker: CSV with image, x, y[, duration, annotator, label]."""
    from preceptor.annotations.tables import Gaze, parse_numbers, read_fixations

    gaze = Gaze(
        sigma,
        sigma_unit,
        pixels_per_degree,
        parse_numbers("--display", display, 4) if display else None,
        positions,
        parse_numbers("--screen", screen, 2) if screen else None,
    )
    return read_fixations(_one(source), images, gaze)


def _folders(
    source: Sources,
    images: Images = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of masks in the same subfolders; if it is SOURCE, a_mask.png is that of "
            "a.png.",
            show_default=False,
        ),
    ] = None,
) -> "ImportedAnnotations":
    """Class folders with images, and masks in the same subfolders of --masks."""
    from preceptor.annotations import read_folders

    return read_folders(_one(source), masks)


def _labelme(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """LabelMe (JSON): polygons, rectangles, circles, lines, points and masks."""
    from preceptor.annotations import read_labelme

    return read_labelme(source)


def _labelstudio(
    source: Sources,
    images: Images = None,
    image_key: Annotated[
        str,
        typer.Option(
            help="Key of the image in the data of a task (default: detected).",
            show_default=False,
        ),
    ] = "",
) -> "ImportedAnnotations":
    """Label Studio (JSON): rectangles, polygons, ellipses, brush and keypoints."""
    from preceptor.annotations import read_labelstudio

    return read_labelstudio(source, image_key=image_key)


def _masks(
    source: Sources,
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    mask_label: Annotated[str, typer.Option(help="Class of masks without colors.")] = "positive",
) -> "ImportedAnnotations":
    """A folder of mask images: binary, gray, palette or one color per class."""
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
    from preceptor.errors import InputError

    if len(source) != 1:
        raise InputError(f"{len(source)} sources are given; this format has one file or folder")
    return source[0]


def _write(
    imported: "ImportedAnnotations",
    images: Path,
    *,
    to: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with path,label[,split,source,group,annotated] (default: labels from the "
            "annotations).",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        Classes,
        typer.Option(
            help="Class of the shapes to draw; images with one have this label. Repeatable "
            "(default: all classes).",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[
        str, typer.Option(help="Label of images without a shape of these classes.")
    ] = "negative",
    unmarked: Annotated[
        Literal["examined", "unknown"] | None,
        typer.Option(
            help="Images without a shape: examined (nothing to mark) or unknown (not examined).",
            show_default=False,
        ),
    ] = None,
    nothing_to_mark: Annotated[
        Classes,
        typer.Option(
            help="Label whose images without a shape were examined; others were not. Repeatable.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        str, typer.Option(help="Maps of the shapes: filled, or soft:PX (blurred).")
    ] = "filled",
    line_width: Annotated[
        float, typer.Option(min=0.1, help="Width of lines in pixels.", callback=finite)
    ] = 3.0,
    point_radius: Annotated[
        float, typer.Option(min=0.1, help="Radius of points in pixels.", callback=finite)
    ] = 5.0,
    merge: Annotated[
        str, typer.Option(help="Map of several annotators: mean, majority, any, or one's name.")
    ] = "mean",
    split: Annotated[
        str | None,
        typer.Option(
            help="Shares of train, val and test, such as 0.7,0.15,0.15 (default: the splits of "
            "SOURCE).",
            show_default=False,
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            help="Column of --labels, or regular expression on the path of the image, that names "
            "images of one subject.",
            show_default=False,
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the splits.")] = 0,
) -> None:
    """Write a manifest and maps; the parameters after `*` are options of all formats."""
    from preceptor.annotations.shapes import RasterOptions
    from preceptor.annotations.write import ImportOptions, parse_split, write_import
    from preceptor.utils.text import progress

    options = ImportOptions(
        RasterOptions.parse(shape, line_width, point_radius),
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
    with progress() as bar:
        task = bar.add_task("writing maps", total=None, note="")

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

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
    own = inspect.signature(read).parameters
    common = inspect.signature(_write).parameters.values()
    options = [one for one in common if one.kind is inspect.Parameter.KEYWORD_ONLY]

    def run(**values: Any) -> None:
        from preceptor.utils.process import bulk_import

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
    run.__doc__ = read.__doc__
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
    train: Annotated[Path, typer.Option(help="Training CSV without header: split, class, path.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    heatmaps: Annotated[Path, typer.Option(help="Folder of heat maps with the same file names.")],
    to: Annotated[Path, typer.Option(help="Output manifest, .csv or .parquet.")],
    test: Annotated[list[Path] | None, typer.Option(help="CSV of a test set. Repeatable.")] = None,
    join: Annotated[
        str | None,
        typer.Option(
            help="Name of one test set of all test CSVs, each of which is a source, such as "
            "test-unseen (default: a test set for each CSV).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Import the UND CYBORG release in its published form."""
    from preceptor.annotations import read_und

    check_target("--to", to, formats=MANIFEST_FORMATS)
    table = read_und(train, test or [], images, heatmaps, join=join)
    table.write(to)
    print(f"wrote {to}: {len(table):,} images")


def data_export(
    format_: Annotated[
        Format, typer.Argument(metavar="FORMAT", help="masks, coco, labelstudio, labelme or cvat.")
    ],
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|STORE", help="Manifest, or a Teacher's map store.")
    ],
    to: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="Manifest of the images of a map store.", show_default=False),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1,
            help="Smallest value of the map, 0 to 1, of a pixel inside a shape (default: 0.5; "
            "format masks of a manifest: gray levels are kept).",
            show_default=False,
            callback=finite,
        ),
    ] = None,
    shapes: Annotated[
        Literal["polygons", "masks"], typer.Option(help="Shapes: polygons or masks.")
    ] = "polygons",
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            help="Largest deviation of a simplified polygon, in pixels.",
            callback=finite,
        ),
    ] = 0.0,
    positive: Annotated[
        Classes,
        typer.Option(
            help="Class whose maps are exported; images of other classes have no shapes. "
            "Repeatable (default: all classes).",
            show_default=False,
        ),
    ] = None,
    as_: Annotated[
        Literal["annotations", "predictions"] | None,
        typer.Option(
            "--as",
            help="Kind of the shapes: annotations (default for a manifest) or predictions (default "
            "for a map store).",
            show_default=False,
        ),
    ] = None,
    interpolation: Annotated[
        Literal["linear", "area"],
        typer.Option(help="Interpolation of a map store: linear, or area (constant in each cell)."),
    ] = "linear",
    image_prefix: Annotated[
        str,
        typer.Option(help="Address before the names of the images in Label Studio."),
    ] = "/data/local-files/?d=",
    annotator: Annotated[
        str | None,
        typer.Option(
            help="Export the maps of this annotator instead of the merged ones, from the folder "
            "annotators beside the manifest.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Export also images of a manifest that nobody examined.")
    ] = False,
) -> None:
    """Export maps to another tool.

    The human maps of a manifest, or a Teacher's maps, are written as annotations to be corrected.
    labels.csv has the columns that the format lacks: give it to data import with --labels.
    """
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.annotations.agreement import read_annotators
        from preceptor.annotations.export import (
            ExportOptions,
            manifest_images,
            store_images,
            unsettled,
            write_export,
        )
        from preceptor.annotations.write import MANIFEST
        from preceptor.data.manifest import Manifest
        from preceptor.errors import InputError
        from preceptor.maps.store import is_store, read_store
    from preceptor.utils.text import progress

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
        (
            stored and every,
            "--all belongs to a manifest; of a map store all images are exported",
        ),
        (
            annotator is not None and (stored or every),
            "--annotator belongs to a manifest without --all; leave one of them out",
        ),
        (
            annotator is not None and source.name != MANIFEST,
            f"--annotator needs FOLDER/{MANIFEST} of data import, not {source}",
        ),
    ):
        if wrong:
            raise InputError(message)
    if annotator is not None:
        table = read_annotators(source.parent).manifest_of(annotator)
    else:
        table = Manifest.read(manifest or source, verify=False, need=())
    predictions = as_ == "predictions" if as_ is not None else stored
    classes, model, noise = positive or (), "", 0
    with progress() as bar:
        task = bar.add_task("exporting", total=None, note="")

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if stored:
            store = read_store(source, columns=("map", "class", "score", "error"))
            noise = unsettled(store, classes)
            model = f"{store.info.teacher} {store.info.method}"
            images = store_images(
                store, table, positive=classes, interpolation=interpolation, progress=told
            )
            threshold = 0.5 if threshold is None else threshold
        else:
            images = manifest_images(table, every=every, positive=classes, progress=told)
        options = ExportOptions(shapes, threshold, tolerance, predictions, model, image_prefix)
        count, marked = write_export(format_, images, to, options)
    print(f"wrote {to}: {count:,} images, {marked:,} with marks")
    if noise:
        print(f"{noise:,} maps did not reach the tolerance and were left out")


def data_agreement(
    folder: Annotated[
        Path, typer.Argument(help="Folder written by data import: manifest.csv, annotators/NAME/….")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Output folder of the page and its tables (default: agreement in FOLDER).",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, max=500, help="Number of images with pictures.")
    ] = 24,
) -> None:
    """Compare annotators of the same images.

    A page and CSV tables are written: Dice, IoU and correlation of each pair, each annotator
    against the others, and the images with the least agreement.
    """
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.annotations.agreement import agreement_of, read_annotators
        from preceptor.report.annotators import PAGE, write_agreement
    from preceptor.utils.text import number, progress

    maps = read_annotators(folder)
    with progress() as bar:
        task = bar.add_task("comparing maps", total=None, note="")
        agreement = agreement_of(
            maps, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
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
