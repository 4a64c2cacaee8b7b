"""Commands of `preceptor data import`."""

# No postponed annotations: the signatures of the commands are put together from those of the
# readers below, and typer evaluates no text in them.

import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.cli.options import finite
from preceptor.runtime.plugins import load_plugin, plugin, registered

if TYPE_CHECKING:
    from preceptor.data.importers.shapes import ImportedAnnotations

imports = typer.Typer(
    help="Import annotations of other tools, and published data sets.", no_args_is_help=True
)

Sources = Annotated[list[Path], typer.Argument(help="File or folder of the annotations.")]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of the images (default: that of SOURCE).", show_default=False),
]

Reader = Callable[..., "ImportedAnnotations"]


def _coco(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """COCO instances: boxes, polygons and run-length encoded masks."""
    from preceptor.data.importers.coco import read_coco

    return read_coco(source)


def _cvat(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """CVAT for images 1.1 (XML): boxes, polygons, lines, ellipses, points and masks."""
    from preceptor.data.importers.cvat import read_cvat

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
        typer.Option(
            help="Pixels of the screen per degree of visual angle.",
            show_default=False,
            callback=finite,
        ),
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
    from preceptor.data.importers.fixations import Gaze, parse_display, parse_screen, read_fixations

    gaze = Gaze(
        sigma,
        sigma_unit,
        pixels_per_degree,
        parse_display(display) if display else None,
        positions,
        parse_screen(screen) if screen else None,
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
    from preceptor.data.importers.folders import read_folders

    return read_folders(_one(source), masks)


def _labelme(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """LabelMe (JSON): polygons, rectangles, circles, lines, points and masks."""
    from preceptor.data.importers.labelme import read_labelme

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
    from preceptor.data.importers.labelstudio import read_labelstudio

    return read_labelstudio(source, image_key=image_key)


def _masks(
    source: Sources,
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    mask_label: Annotated[str, typer.Option(help="Class of masks without colors.")] = "positive",
) -> "ImportedAnnotations":
    """A folder of mask images: binary, gray, palette or one color per class."""
    from preceptor.data.importers.masks import read_masks

    return read_masks(_one(source), images, label=mask_label)


def _voc(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """Pascal VOC: XML boxes and segmentation PNGs."""
    from preceptor.data.importers.voc import read_voc

    return read_voc(_one(source))


def _yolo(source: Sources, images: Images = None) -> "ImportedAnnotations":
    """YOLO text files: boxes, segments and oriented boxes, with data.yaml."""
    from preceptor.data.importers.yolo import read_yolo

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


@imports.command("auto")
def auto(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
) -> None:
    """Print the format of a source, and how it was recognized."""
    from preceptor.data.importers.detect import detect_format

    found = detect_format(source)
    for one in found:
        print(f"{one.format}: {one.why}")
    best = found[0]
    sources = shlex.join(map(str, best.sources))
    print(f"import: preceptor data import {best.format} {sources} --images DIR --to FOLDER")


def _write(
    imported: "ImportedAnnotations",
    images: Path,
    *,
    to: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with path,label[,split,source,group] (default: labels from the annotations).",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        list[str] | None,
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
    shape: Annotated[
        str,
        typer.Option(help="Maps of the shapes: filled, soft:PX (blurred) or centre (a Gaussian)."),
    ] = "filled",
    line_width: Annotated[
        float, typer.Option(min=0.1, help="Width of lines in pixels.", callback=finite)
    ] = 3.0,
    point_radius: Annotated[
        float, typer.Option(min=0.1, help="Radius of points in pixels.", callback=finite)
    ] = 5.0,
    merge: Annotated[
        str,
        typer.Option(help="Map of several annotators: mean, majority, staple, any, or one's name."),
    ] = "mean",
    exif: Annotated[
        Literal["auto", "upright", "stored"],
        typer.Option(help="Image of the coordinates: upright, as stored, or decided by auto."),
    ] = "auto",
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
    from preceptor.cli.data_output import print_import
    from preceptor.data.importers.options import ImportOptions, parse_split
    from preceptor.data.importers.rasterize import RasterOptions, parse_shape
    from preceptor.data.importers.write import write_import
    from preceptor.runtime.progress import progress

    kind, soft = parse_shape(shape)
    options = ImportOptions(
        RasterOptions(kind, soft, line_width, point_radius),
        labels,
        tuple(positive or ()),
        negative,
        unmarked,
        merge,
        exif,
        parse_split(split) if split else {},
        group_by,
        seed,
    )
    with progress() as bar:
        task = bar.add_task("writing maps", total=None, note="")
        summary = write_import(
            imported,
            images,
            to,
            options,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_import(summary)


def _command(read: Reader) -> Callable[..., None]:
    """Command of a format: the options of its reader, then those of `_write`."""
    own = inspect.signature(read).parameters
    common = inspect.signature(_write).parameters
    options = [one for one in common.values() if one.kind is inspect.Parameter.KEYWORD_ONLY]

    def run(**values: Any) -> None:
        from preceptor.runtime.bulk_import import bulk_import

        with bulk_import():
            from preceptor.data.importers.write import write_import  # noqa: F401  # and torch

        imported = read(**{name: values[name] for name in own})
        first = values["source"][0]
        folder = values["images"] or (first if first.is_dir() else first.parent)
        _write(imported, folder, **{one.name: values[one.name] for one in options})

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.values()]
    parameters += options
    # typer reads the options of a command from its signature.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
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
