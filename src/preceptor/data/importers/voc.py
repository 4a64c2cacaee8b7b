"""Importer of Pascal VOC: XML boxes and segmentation PNGs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np

from preceptor.data.importers.class_masks import masks_by_value, open_mask
from preceptor.data.importers.color_names import VOC_CLASSES, read_labelmap, voc_color
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    Box,
    Floats,
    ImportedAnnotations,
    Log,
    Polygon,
)
from preceptor.data.importers.source_files import files_below
from preceptor.data.importers.split_words import split_of, split_of_folders
from preceptor.data.importers.xml_file import finite_number, read_xml
from preceptor.errors import InputError

_FIX = "correct or remove the object"


def read_voc(source: Path | str) -> ImportedAnnotations:
    """Pascal VOC: `Annotations/*.xml`, `SegmentationClass/*.png`, `ImageSets/*/*.txt`.

    Where an image has a segmentation, its boxes are not read. Boxes of the VOC development kit and
    of Roboflow count pixels from 1 and contain the last one; those of other tools, which write
    another `database`, are corners from 0. Segments of the value 255 (void) belong to no class.
    Splits are those of `ImageSets`, else of the folders.

    Args:
        source: Folder of the data set, folder of the XML files, or one XML file.

    Raises:
        InputError: There is no such file, or the class names cannot be read.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: there is no such file; correct the path")
    root = path if path.is_dir() else path.parent
    xmls = files_below(root, ".xml") if path.is_dir() else [path]
    masks = {
        one.relative_to(root).with_suffix("").as_posix().split("SegmentationClass/")[-1]: one
        for one in files_below(root, ".png")
        if "SegmentationClass" in one.relative_to(root).parts
    }
    if not xmls and not masks:
        raise InputError(
            f"{path}: there is neither an XML file nor a folder SegmentationClass in it; correct "
            "the path"
        )
    labelmap = root / "labelmap.txt"
    colors = read_labelmap(labelmap) if labelmap.is_file() else {}
    splits = _splits(root)

    def read(log: Log) -> Iterator[AnnotatedImage]:
        left = dict(masks)
        for xml in xmls:
            of = xml.relative_to(root).as_posix()
            try:
                element = read_xml(xml, "annotation")
            except InputError as error:
                log.error(of, error, "export it again", xml)
                continue
            stem = of.removesuffix(".xml").split("Annotations/")[-1]
            record = _image(element, stem, of, log, left.get(stem))
            mask = left.pop(stem, None)
            if record is None:
                continue
            split = splits.get(stem) or splits.get(PurePosixPath(stem).name)
            split = split or split_of_folders(PurePosixPath(of)) or split_of(xml.parent.name)
            shapes = record[1] if mask is None else tuple(_segments(mask, root, colors, log))
            name, _, size = record
            yield AnnotatedImage(name, size, shapes, split=split, examined=True, of=of)
        for stem, mask in left.items():
            opened = open_mask(mask)
            size = None if isinstance(opened, str) else opened.size
            shapes = tuple(_segments(mask, root, colors, log))
            of = mask.relative_to(root).as_posix()
            split = splits.get(stem) or splits.get(PurePosixPath(stem).name) or ""
            yield AnnotatedImage(f"{stem}.*", size, shapes, split=split, examined=True, of=of)

    return ImportedAnnotations(
        "voc",
        path,
        read,
        annotators=(),
        count=len({*masks, *(x.stem for x in xmls)}),
        classes=[name for name in colors.values() if name != "background"],
    )


def _splits(root: Path) -> dict[str, str]:
    """Split of each image in `ImageSets`; of several sets, the first in the order of names."""
    found: dict[str, str] = {}
    for file in files_below(root, ".txt"):
        split = split_of(file.stem)
        if "ImageSets" not in file.relative_to(root).parts or not split:
            continue
        for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            if words := line.split():
                found.setdefault(words[0], split)
    return found


_Record = tuple[str, tuple[Annotation, ...], tuple[int, int] | None]


def _image(element: Element, stem: str, of: str, log: Log, mask: Path | None) -> _Record | None:
    name = (element.findtext("filename") or "").strip()
    if not name:
        log.problem(of, "it has no filename", "write the name of the image file")
        return None
    folder = PurePosixPath(stem).parent
    if not PurePosixPath(name).suffix:
        name = f"{name}.*"
    if str(folder) != "." and "/" not in name:
        name = f"{folder}/{name}"
    size = None
    if element.find("size") is not None:
        stated = [finite_number(element.findtext(f"size/{one}")) for one in ("width", "height")]
        if any(one is None or one < 1 or one != int(one) for one in stated):
            # labelImg writes 0 where it could not read the image; no size is stated then.
            if stated != [0, 0]:
                texts = [element.findtext(f"size/{one}") for one in ("width", "height")]
                log.problem(of, f"the size is {texts[0]} × {texts[1]}", "write whole numbers")
                return None
        else:
            size = (int(stated[0] or 0), int(stated[1] or 0))
    if mask is not None:
        return name, (), size
    database = (element.findtext("source/database") or "").strip()
    from_one = database.startswith("The VOC") or "roboflow" in database
    found: list[Annotation] = []
    for number, one in enumerate(element.findall("object"), 1):
        where = f"object {number}"
        label = (one.findtext("name") or "").strip()
        names = ("xmin", "ymin", "xmax", "ymax")
        box = [finite_number(one.findtext(f"bndbox/{name}")) for name in names]
        if not label:
            log.problem(f"{of}, {where}", "it has no name", _FIX)
        elif one.find("polygon") is not None:
            ring = _polygon(one.find("polygon"), from_one)
            if ring is None:
                what = "its polygon is not x1, y1, x2, y2, … of 3 or more points"
                log.problem(f"{of}, {where}", what, _FIX)
            else:
                found.append(Annotation(Polygon((ring,)), label, where=where))
        elif any(value is None for value in box):
            bad = next(n for n, value in zip(names, box, strict=True) if value is None)
            text = one.findtext(f"bndbox/{bad}")
            log.problem(f"{of}, {where}", f"{bad} is {text!r}, not a finite number", _FIX)
        else:
            left, top, right, bottom = (float(value or 0) for value in box)
            if from_one:
                left, top = left - 1, top - 1
            shape = Box(left, top, right - left, bottom - top)
            found.append(Annotation(shape, label, where=where))
    return name, tuple(found), size


def _polygon(element: Element | None, from_one: bool) -> Floats | None:
    """(n, 2) points of the elements x1, y1, x2, y2, …; None if one is missing."""
    children = list(element) if element is not None else []
    values = {child.tag: finite_number(child.text) for child in children}
    count = len(values) // 2
    names = [f"{axis}{number}" for number in range(1, count + 1) for axis in "xy"]
    found = [values.get(name) for name in names]
    if count < 3 or len(values) != 2 * count or any(one is None for one in found):
        return None
    points: Floats = np.array(found, np.float64).reshape(-1, 2) - float(from_one)
    return points


def _segments(
    mask: Path, root: Path, colors: dict[tuple[int, int, int], str], log: Log
) -> Iterator[Annotation]:
    of = mask.relative_to(root).as_posix()
    opened = open_mask(mask)
    if isinstance(opened, str):
        log.problem(of, opened, "replace the file")
        return
    known = colors or {voc_color(n): name for n, name in enumerate(("background", *VOC_CLASSES))}
    try:
        segments = list(masks_by_value(opened))
    except ValueError as error:
        log.error(of, error, "save it as PNG")
        return
    for color, shape in segments:
        label = known.get(color)
        if label == "background" or color in ((0, 0, 0), voc_color(255)):
            continue
        if label is None:
            log.problem(of, f"the color {color} is of no class", "add it to labelmap.txt")
        else:
            yield Annotation(shape, label, where=f"color {color}")
