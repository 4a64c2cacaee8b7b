"""Exporter of Label Studio's tasks, with predictions to be corrected or with annotations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from preceptor.data.exporters.images import ExportedImage, ExportOptions, Region, regions_of
from preceptor.data.importers.brush_rle import encode_brush
from preceptor.runtime.strict_json import strict_json


def write_labelstudio(
    images: Iterable[ExportedImage], folder: Path, options: ExportOptions
) -> None:
    """Write `tasks.json` and `labeling_config.xml`, the labeling interface of the project.

    The address of an image is the prefix of the options and its name.

    Args:
        images: Images with their maps.
        folder: Folder that is written.
        options: Options.
    """
    key = "predictions" if options.predictions else "annotations"
    labels: dict[str, None] = {}
    # Written task by task: run-length encoded masks of many images do not fit in the memory.
    with (folder / "tasks.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for number, image in enumerate(images):
            labels[image.shape_label] = None
            task: dict[str, Any] = {
                "data": {"image": options.image_prefix + quote(image.name), "name": image.name}
            }
            found: dict[str, Any] = {
                "result": [
                    _result(region, image, options, f"{number + 1}-{place + 1}")
                    for place, region in enumerate(regions_of(image, options))
                ]
            }
            if options.predictions:
                found["model_version"] = options.model or "preceptor"
                if image.score is not None:
                    found["score"] = round(image.score, 6)
            task[key] = [found]
            file.write(("," if number else "") + "\n" + strict_json(task, indent=None))
        file.write("\n]\n")
    (folder / "labeling_config.xml").write_text(_config(list(labels), options), encoding="utf-8")


def _result(
    region: Region, image: ExportedImage, options: ExportOptions, known: str
) -> dict[str, Any]:
    width, height = image.size
    if options.form == "polygons":
        kind = "polygonlabels"
        percent = region.ring * (100 / width, 100 / height)
        value: dict[str, Any] = {"points": percent.tolist(), "closed": True}
    else:
        kind = "brushlabels"
        whole = np.zeros((height, width), np.uint8)
        high, wide = region.mask.shape
        whole[region.y : region.y + high, region.x : region.x + wide] = region.mask * 255
        value = {"format": "rle", "rle": encode_brush(whole)}
    return {
        "id": known,
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value | {kind: [image.shape_label]},
    }


def _config(labels: list[str], options: ExportOptions) -> str:
    tag = "PolygonLabels" if options.form == "polygons" else "BrushLabels"
    inner = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in labels)
    return (
        f'<View>\n  <Image name="image" value="$image"/>\n'
        f'  <{tag} name="label" toName="image">\n{inner}  </{tag}>\n</View>\n'
    )
