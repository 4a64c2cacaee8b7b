"""Human maps of a manifest as annotations of another tool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import splitext
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from preceptor.annotations.shapes import POINT_RADIUS, Floats, joined, outline
from preceptor.annotations.write import POINTS, unique_name
from preceptor.data.images import ImageError, decode_marks, image_size
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import resample
from preceptor.errors import InputError, Problem, ProblemsError, is_control, without_secrets
from preceptor.utils.files import new_folder, replacing
from preceptor.utils.results import strict_json
from preceptor.utils.text import Progress

_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


class Region(NamedTuple):
    """Connected region of a mask; the cuts that join its holes to the ring have no width."""

    ring: Floats  # (n, 2)
    area: int  # pixels
    box: tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True, eq=False)
class ExportedImage:
    """One image with its map."""

    row: pd.Series  # of the manifest
    size: tuple[int, int]  # width and height of the upright image
    pixels: NDArray[np.float32] | None = None  # (height, width) from 0 to 1; None = nothing marked
    marked: str = ""  # class of the shapes; "" = the label of the image

    @property
    def name(self) -> str:
        """Name as in the manifest."""
        return str(self.row["name"])

    @property
    def label(self) -> str:
        """Class of the shapes."""
        return self.marked or str(self.row["label"])

    def mask(self) -> NDArray[np.bool_]:
        """Mask of the pixels from half of the largest value on: people also mark in weak gray."""
        if self.pixels is None:
            return np.zeros(self.size[::-1], bool)
        return (self.pixels >= 0.5 * float(self.pixels.max())) & (self.pixels > 0)

    def points(self) -> list[dict[str, Any]]:
        """Key points of COCO, of an image whose marks are points; else []."""
        side, found = 2 * POINT_RADIUS * min(self.size), []
        for pair in filter(None, str(self.row.get(POINTS) or "").split(";")):
            try:
                x, y = map(float, pair.split(","))
            except ValueError:
                raise InputError(f"{self.name}: {POINTS} is {pair!r}, not x,y;x,y") from None
            box = [x - side / 2, y - side / 2, side, side]
            key = {"keypoints": [x, y, 2], "num_keypoints": 1, "segmentation": []}
            found.append(key | {"area": side**2, "bbox": box})
        return found

    def regions(self) -> Iterator[Region]:
        """Connected regions of the mask, from top to bottom."""
        labels, _ = ndimage.label(self.mask(), structure=np.ones((3, 3), np.int64))
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            mask = labels[rows, columns] == number
            x, y, (high, wide) = columns.start, rows.start, mask.shape
            for rings in outline(mask):
                ring = joined(rings) + np.array([x, y])
                yield Region(ring, int(mask.sum()), (x, y, wide, high))


def _read(row: pd.Series) -> ExportedImage:
    width, height = image_size(str(row["path"]))
    if not row["saliency"]:
        return ExportedImage(row, (width, height))
    pixels = decode_marks(str(row["saliency"]))
    if pixels.shape != (height, width):
        maps = torch.from_numpy(pixels)[None]
        pixels = resample(maps, _UNIT, _UNIT, (height, width))[0].numpy()
    return ExportedImage(row, (width, height), pixels)


def manifest_images(
    manifest: Manifest, *, progress: Progress | None = None
) -> Iterator[ExportedImage]:
    """Annotated images of a manifest with their human maps, resampled by areas to their sizes.

    After a problem, only further problems are looked for, and raised at the end.
    """
    table = manifest.table[manifest.annotated_mask]
    problems: list[Problem] = []
    for done, (_, row) in enumerate(table.iterrows(), 1):
        try:
            image = _read(row)
        except ImageError as error:
            problems.append(Problem(str(row["name"]), str(error), "replace the file"))
        else:
            if not problems:
                yield image
        if progress is not None:
            progress(done, len(table))
    if problems:
        raise ProblemsError(str(manifest.source or manifest.root), problems)


def write_export(name: str, images: Iterable[ExportedImage], to: Path) -> tuple[int, int]:
    """Write images with their maps in a format, and `labels.csv` for the way back.

    The folder appears when it is complete. Returns the numbers of images, and of images with marks.
    """
    rows: list[pd.Series] = []
    marked = 0

    def counted() -> Iterator[ExportedImage]:
        nonlocal marked
        for image in images:
            rows.append(image.row)
            marked += bool(image.mask().any())
            yield image

    with replacing(new_folder(to), new=True) as folder:
        folder.mkdir()
        FORMATS[name](counted(), folder)
        if not rows:
            raise InputError("there is no image to export; annotate some")
        table = pd.DataFrame(rows).drop(columns=["path", "saliency"])
        table = table.rename(columns={"name": "path"})
        table["annotated"] = np.where(table["annotated"], "1", "")
        usual = [name for name in table if (table[name].isna() | table[name].isin(["", 1.0])).all()]
        table.drop(columns=usual).to_csv(folder / "labels.csv", index=False)
    return len(rows), marked


def file_of(image: str, suffix: str, folder: Path, taken: set[str]) -> Path:
    """New file in a folder for an image, with the folders above it."""
    parts = [
        "".join("_" if is_control(letter) else letter for letter in part)
        for part in PurePosixPath(without_secrets(image).replace("\\", "/")).parts
        if part not in ("/", "..", ".")
    ]
    name = "/".join(parts) or "image"
    path = folder / unique_name(taken, suffix, splitext(name)[0], name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_masks(images: Iterable[ExportedImage], folder: Path) -> None:
    """Write `masks/NAME.png` with the gray levels; an empty mask says that nothing is marked."""
    taken: set[str] = set()
    (folder / "masks").mkdir()
    for image in images:
        pixels = np.zeros(image.size[::-1]) if image.pixels is None else image.pixels
        path = file_of(image.name, ".png", folder / "masks", taken)
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(path, "PNG", compress_level=1)


def _write_coco(images: Iterable[ExportedImage], folder: Path) -> None:
    """Write `annotations.json`, one annotation for each point, else for each region."""
    classes: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        width, height = image.size
        listed.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for kind in image.points() or (
            {"segmentation": [one.ring.ravel().tolist()], "area": one.area, "bbox": one.box}
            for one in image.regions()
        ):
            category = classes.setdefault(image.label, len(classes) + 1)
            shape = {"id": len(shapes) + 1, "image_id": number, "category_id": category}
            shapes.append(shape | kind | {"iscrowd": 0})
    has_points = any("keypoints" in one for one in shapes)
    keys: dict[str, Any] = {"keypoints": ["point"], "skeleton": []} if has_points else {}
    content = {
        "info": {"description": "preceptor"},
        "images": listed,
        "annotations": shapes,
        "categories": [{"id": number, "name": name} | keys for name, number in classes.items()],
    }
    text = strict_json(content, indent=None) + "\n"
    (folder / "annotations.json").write_text(text, encoding="utf-8")


FORMATS: dict[str, Callable[[Iterable[ExportedImage], Path], None]] = {
    "masks": _write_masks,
    "coco": _write_coco,
}
"""Writers by the name of the format: functions of images and the folder."""
