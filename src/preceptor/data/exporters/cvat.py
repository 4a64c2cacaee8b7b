"""Exporter of CVAT's XML 1.1 for images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from preceptor.data.exporters.images import ExportedImage, ExportOptions, Region, regions_of
from preceptor.data.importers.coco_rle import encode_counts

# Characters that XML 1.0 cannot hold, not even escaped.
_NOT_XML = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF], "_")


def write_cvat(images: Iterable[ExportedImage], folder: Path, options: ExportOptions) -> None:
    """Write `annotations.xml`; the class of an image is a tag.

    Shapes of a model have `source="auto"`, others `source="manual"`.

    Args:
        images: Images with their maps.
        folder: Folder that is written.
        options: Options.
    """
    source = "auto" if options.predictions else "manual"
    labels: dict[str, None] = {}
    body = folder / "annotations.xml.images"
    # The classes stand at the head of the file and are known at its end.
    with body.open("w", encoding="utf-8") as file:
        for number, image in enumerate(images):
            labels |= dict.fromkeys((image.label, image.shape_label))
            width, height = image.size
            subset = f" subset={_quoted(image.split)}" if image.split else ""
            file.write(
                f'  <image id="{number}" name={_quoted(image.name)}{subset} width="{width}" '
                f'height="{height}">\n'
            )
            if not options.predictions:
                file.write(f'    <tag label={_quoted(image.label)} source="{source}"></tag>\n')
            for region in regions_of(image, options):
                file.write(f"    {_shape(region, image.shape_label, source, options)}\n")
            file.write("  </image>\n")
    with (folder / "annotations.xml").open("w", encoding="utf-8") as file:
        file.write(_head(list(labels)))
        with body.open(encoding="utf-8") as stored:
            for line in stored:
                file.write(line)
        file.write("</annotations>\n")
    body.unlink()


def _head(labels: list[str]) -> str:
    inner = "".join(
        f"        <label><name>{escape(name.translate(_NOT_XML))}</name>"
        "<attributes></attributes></label>\n"
        for name in labels
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta>\n    <task>\n      <labels>\n{inner}      </labels>\n    </task>\n  </meta>\n"
    )


def _shape(region: Region, label: str, source: str, options: ExportOptions) -> str:
    common = f'label={_quoted(label)} source="{source}" occluded="0"'
    if options.form == "polygons":
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in region.ring.tolist())
        return f'<polygon {common} points="{points}" z_order="0"></polygon>'
    high, wide = region.mask.shape
    # Row by row: the transposed mask, column by column.
    rle = ", ".join(map(str, encode_counts(np.ascontiguousarray(region.mask.T))))
    return (
        f'<mask {common} rle="{rle}" left="{region.x}" top="{region.y}" width="{wide}" '
        f'height="{high}" z_order="0"></mask>'
    )


def _quoted(text: str) -> str:
    return quoteattr(text.translate(_NOT_XML))
