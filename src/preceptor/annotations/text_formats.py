"""Tables, text and XML: points, the UND CYBORG release (Notre Dame), YOLO, Pascal VOC, CVAT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Unpack
from xml.etree.ElementTree import Element

import pandas as pd
import yaml

from preceptor.annotations.files import (
    ImageFiles,
    existing,
    files_below,
    files_of,
    number,
    points_of,
    read_text,
    read_xml,
    shown,
    size_of,
    split_of,
    split_of_folders,
    whole,
)
from preceptor.annotations.json_formats import decode_rle
from preceptor.annotations.masks import LABEL, place_of
from preceptor.annotations.shapes import (
    AnnotatedImage,
    Annotation,
    Box,
    Ellipse,
    ImportedAnnotations,
    Log,
    Mask,
    Points,
    Polygon,
    Polyline,
    Shape,
)
from preceptor.data.checks import Findings, check_columns, read_table, text
from preceptor.data.images import image_size, image_suffixes
from preceptor.data.manifest import Checks, Manifest, check_raw
from preceptor.errors import InputError, reason
from preceptor.metrics.split_names import kind_or_none

_UND_HEADER = ["split", "label", "path"]


def read_cells(path: Path, required: Sequence[str]) -> tuple[pd.DataFrame, Findings]:
    """Cells of a table as stripped text, and the findings to add to."""
    findings = Findings(str(path))
    raw = read_table(path, findings)
    check_columns(raw, required, findings)
    findings.raise_if_any()
    cells = {str(name): text(raw[name]).str.strip() for name in raw.columns}
    return pd.DataFrame(cells), findings


def read_und(
    train_csv: Path,
    test_csvs: Sequence[Path],
    image_root: Path,
    heatmaps: Path | None,
    *,
    join: str | None = None,
    **checks: Unpack[Checks],
) -> Manifest:
    """Read the release in its published form: CSVs without header, and a folder of heat maps.

    The rows are `split,class,/path`. A heat map has the name of its image with any suffix, at the
    same relative path under `heatmaps` or, for training and validation images, anywhere in it. The
    folder of an image is its source. The split `test` of the training CSV becomes `val`; test sets
    are named by their files, or `join` names one set of all, whose sources are the files.
    """
    if join is not None and kind_or_none(join) != "test":
        raise InputError(f"join {join!r} is no test set; name it test or test-NAME")
    parts: list[pd.DataFrame] = []
    row_names: list[str] = []
    named: dict[str, Path] = {}
    for csv_path in map(Path, (train_csv, *test_csvs)):
        read = Findings(str(csv_path), partial("{} row {}".format, csv_path.name))
        raw = read_table(csv_path, read, _UND_HEADER)
        read.raise_if_any()
        part = raw.assign(split=raw["split"].str.strip())
        part["path"] = part["path"].str.strip().str.lstrip("/")
        part = part[part["split"].str.lower() != "split"].copy()  # a header after all
        folders = [str(PurePosixPath(path).parent) for path in part["path"]]
        part["source"] = ["" if folder == "." else folder for folder in folders]
        if csv_path == Path(train_csv):
            part["split"] = part["split"].replace("test", "val")  # where the authors select
        else:
            stem = csv_path.stem
            is_test = kind_or_none(stem) == "test"
            name = stem if is_test else f"test-{re.sub('^test[^a-zA-Z0-9]+', '', stem)}"
            part["split"] = name
            if join is not None:
                part["split"], part["source"] = join, stem
            if (first := named.setdefault(name, csv_path)) != csv_path:
                what = f"its test set would be {name}, as the one of {first}"
                raise InputError(f"{csv_path}: {what}; rename one of the files")
        parts.append(part)
        row_names += map(read.name, part.index)
    frame = pd.concat(parts, ignore_index=True)
    findings = Findings(str(train_csv), row_names.__getitem__)
    for where, folder in (("image root", image_root), ("heat maps", heatmaps)):
        if folder is not None and not Path(folder).is_dir():
            findings.add(None, f"{folder} is not a folder", "correct the path", where)
    frame["saliency"] = ""
    if heatmaps is not None and Path(heatmaps).is_dir():
        frame["saliency"] = _und_maps(frame, Path(heatmaps).absolute(), findings)
    checks.setdefault("need", ("train", "val", "test") if test_csvs else ("train", "val"))
    manifest = check_raw(frame, Path(image_root).absolute(), findings, **checks)
    return replace(manifest, source=Path(train_csv))


def _und_maps(frame: pd.DataFrame, folder: Path, findings: Findings) -> list[str]:
    """Heat map of each row, "" for none."""
    maps = [""] * len(frame)
    by_place: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for name in ImageFiles(folder).names:
        by_place.setdefault(place_of(name), []).append(str(folder / name))
        by_name.setdefault(PurePosixPath(name).stem, []).append(str(folder / name))
    claimed: dict[str, int] = {}
    for row, (path, split) in enumerate(zip(frame["path"], frame["split"], strict=True)):
        files = by_place.get(place_of(path), []) if path.strip("/") else []
        if path and not files and kind_or_none(split) != "test":
            files = by_name.get(PurePosixPath(path).stem, [])
        if len(files) > 1:
            what = f"{path!r} has {len(files)} heat maps ({files[0]}, {files[1]}, …)"
            findings.add(row, what, "keep one file with this name")
        elif files and files[0] in claimed:
            first = findings.name(claimed[files[0]])
            what = f"{path!r} and {first} have one heat map ({files[0]})"
            findings.add(row, what, "use the folder structure of the images for the heat maps")
        elif files:
            claimed[files[0]] = row
            maps[row] = files[0]
    return maps


def read_points(source: Path | str) -> ImportedAnnotations:
    """Points of a CSV with the columns path, x, y in pixels of the upright image, and label or not.

    An image may have several rows. A row without x and y says that nothing is to be marked.
    """
    cells, findings = read_cells(Path(source), ("path", "x", "y"))

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for name, rows in cells.groupby("path", sort=False):
            shapes: list[Annotation] = []
            for row, cell in rows.iterrows():
                where = findings.name(int(str(row)))
                with log.part(where, "correct or remove the row"):
                    if not name:
                        raise ValueError("path is empty")
                    if cell["x"] or cell["y"]:
                        at = [number(cell["x"], "x"), number(cell["y"], "y")]
                        label = str(cell.get("label", "")) or LABEL
                        shapes.append(Annotation(Points(points_of(at, 1)), label, where=where))
            if name:
                yield AnnotatedImage(str(name), None, tuple(shapes), examined=True)

    return ImportedAnnotations("points", Path(source), read, (), (), cells["path"].nunique())


_NAMES = "classes.txt"
_NOT_LABELS = {_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt", "notes.txt"}
_NO_NAMES = f"shapes have numbers as classes, as neither data.yaml nor {_NAMES} names them"
# Shares beyond 0 to 1 by rounding.
_SLACK = 0.01


def read_yolo(source: Path | str, images: Path | str | None = None) -> ImportedAnnotations:
    """YOLO: a text file per image with `class x y width height` or `class x y x y x y …`.

    Numbers are shares of the upright image. An empty file says that the image was examined, an
    image without a file nothing. Class names are in `data.yaml`, or in `classes.txt` in the folder
    of the source or beside the text files.
    """
    path = existing(source)
    root = path if path.is_dir() else path.parent
    settings = _settings(path)
    keypoints = isinstance(settings.get("kpt_shape"), list)
    files = ImageFiles(Path(images) if images is not None else root)
    texts = [one for one in files_below(root, ".txt") if one.name.lower() not in _NOT_LABELS]
    texts = [one for one in texts if "labels" in one.relative_to(root).parts[:-1]] or texts
    names = _names(settings, root, texts)

    def read(log: Log) -> Iterator[AnnotatedImage]:
        if not texts:
            log.problem(str(root), "there is no text file of labels in it", "correct the path")
        for file in texts:
            of = file.relative_to(root).as_posix()
            stem = PurePosixPath(of).with_suffix("")
            parts = ["images" if part == "labels" else part for part in stem.parts]
            with log.part(of, "replace the image", file):
                name = files.find(f"{'/'.join(parts)}.*")
                size = image_size(files.folder / name)
                shapes: list[Annotation] = []
                for row, line in enumerate(read_text(file).splitlines(), 1):
                    with log.part(f"{of}, line {row}", "correct or remove the line"):
                        if line.strip():
                            where = f"line {row}"
                            shapes.append(_annotation(line, size, names, keypoints, where))
                if shapes and not names:
                    log.note(_NO_NAMES, len(shapes))
                split = split_of_folders(stem)
                yield AnnotatedImage(name, size, tuple(shapes), split=split, examined=True, of=of)

    classes = list(names.values())
    return ImportedAnnotations("yolo", path, read, classes, (), len(texts), whole_folder=True)


def _settings(path: Path) -> dict[str, Any]:
    """Content of `data.yaml`, or nothing."""
    if path.is_dir():
        candidates = [path / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
        path = next((one for one in candidates if one.is_file()), path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return {}
    try:
        # All values are text as written: classes may be named no, 010 or null.
        value = yaml.load(read_text(path), yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = f"{path}: not sound YAML ({reason(error, 120)}); correct it"
        raise InputError(what) from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: it is not a data.yaml of `key: value` lines; correct it")
    return value


def _names(settings: dict[str, Any], root: Path, texts: list[Path]) -> dict[int, str]:
    """Names of the classes by number; empty = they are not known."""
    names = settings.get("names")
    if isinstance(names, list):
        names = {str(place): name for place, name in enumerate(names)}
    if isinstance(names, dict):
        if not all(str(key).isdecimal() and isinstance(name, str) for key, name in names.items()):
            raise InputError(f"data.yaml: names are {shown(names)}; write a name for each number")
        return {int(key): name for key, name in names.items()}
    folders = {Path(), *(text.relative_to(root).parent for text in texts)}
    files = [file for one in sorted(folders) if (file := root / one / _NAMES).is_file()]
    contents = {read_text(file) for file in files}
    if len(contents) > 1:
        raise InputError(f"{root}: its folders have different {_NAMES}; import one at a time")
    lines = enumerate(contents.pop().splitlines() if contents else ())
    return {place: line.strip() for place, line in lines if line.strip()}


def _annotation(
    line: str, size: tuple[int, int], names: dict[int, str], keypoints: bool, where: str
) -> Annotation:
    """Shape of a line."""
    kind, *words = line.split()
    if not (kind.isascii() and kind.isdecimal() and len(kind) < 10):
        raise ValueError(f"the class is {shown(kind)}, not a whole number")
    values = [number(word, "a number") for word in words[: 4 if keypoints else None]]
    if len(values) < 4 or len(values) % 2:
        what = f"it has {len(values)} numbers after the class"
        raise ValueError(f"{what}, not 4 (a box) or 6, 8, … (a polygon)")
    if min(values) < -_SLACK or max(values) > 1 + _SLACK:
        span = f"{min(values):g} to {max(values):g}"
        raise ValueError(f"{span} are not shares of the image, from 0 to 1")
    if names and int(kind) not in names:
        what = f"there is no class {kind}, which data.yaml or classes.txt does not name"
        raise ValueError(what)
    width, height = size
    shape: Shape = Polygon((points_of(values, 2) * (width, height),))
    if len(values) == 4:
        x, y, across, down = values
        shape = Box(
            (x - across / 2) * width, (y - down / 2) * height, across * width, down * height
        )
    return Annotation(shape, names.get(int(kind)) or str(int(kind)), where=where)


def read_voc(source: Path | str) -> ImportedAnnotations:
    """Pascal VOC: `Annotations/*.xml`, with folders of splits or not.

    Boxes of the VOC development kit and of Roboflow count pixels from 1 and contain the last one;
    boxes of other tools are corners from 0. Segmentations are read as masks.
    """
    path = existing(source)
    root = path if path.is_dir() else path.parent
    xmls = files_of(path, ".xml")

    def read(log: Log) -> Iterator[AnnotatedImage]:
        if (root / "SegmentationClass").is_dir():
            log.note("SegmentationClass is not read: import it as masks, for more than boxes")
        for xml in xmls:
            of = xml.relative_to(root)
            stem = of.with_suffix("").as_posix().split("Annotations/")[-1]
            with log.part(of.as_posix(), "export it again", xml):
                element = read_xml(xml, "annotation")
                name, size = _voc_image(element, PurePosixPath(stem).parent)
                split = split_of_folders(of) or split_of(xml.parent.name)
                shapes = tuple(_voc_objects(element, of.as_posix(), log))
                yield AnnotatedImage(name, size, shapes, (), split, True, of=of.as_posix())

    return ImportedAnnotations("voc", path, read, (), (), len(xmls), whole_folder=True)


def _voc_image(element: Element, folder: PurePosixPath) -> tuple[str, tuple[int, int] | None]:
    """Name and size of the image of a file."""
    name = (element.findtext("filename") or "").strip()
    if not name:
        raise ValueError("it has no filename; write the name of the image file")
    name = name if PurePosixPath(name).suffix.lower() in image_suffixes() else f"{name}.*"
    if str(folder) != "." and "/" not in name:
        name = f"{folder}/{name}"
    stated = [element.findtext(f"size/{one}") for one in ("width", "height")]
    # labelImg writes 0 where it could not read the image.
    return name, None if stated == ["0", "0"] else size_of(*stated)


def _voc_objects(element: Element, of: str, log: Log) -> Iterator[Annotation]:
    database = (element.findtext("source/database") or "").strip()
    first = 1.0 if database.startswith("The VOC") or "roboflow" in database else 0.0
    for row, one in enumerate(element.findall("object"), 1):
        with log.part(f"{of}, object {row}", "correct or remove the object"):
            label = (one.findtext("name") or "").strip()
            if not label:
                raise ValueError("it has no name")
            polygon = one.find("polygon")
            if polygon is not None:  # elements x1, y1, x2, y2, …
                texts = {child.tag: child.text for child in polygon}
                names = [f"{axis}{n}" for n in range(1, len(texts) // 2 + 1) for axis in "xy"]
                points = points_of([number(texts.get(name), name) for name in names], 3)
                shape: Shape = Polygon((points - first,))
            else:
                left, top, right, bottom = (
                    number(one.findtext(f"bndbox/{name}"), name)
                    for name in ("xmin", "ymin", "xmax", "ymax")
                )
                left, top = left - first, top - first
                # CVAT writes the box before it was turned.
                turned = one.findtext("attributes/attribute[name='rotation']/value") or 0
                angle = number(turned, "rotation")
                shape = Box(left, top, right - left, bottom - top, angle)
            yield Annotation(shape, label, where=f"object {row}")


def read_cvat(source: Path | str) -> ImportedAnnotations:
    """CVAT's XML 1.1 for images, a file or a folder with one, without shapes of models.

    The subset of an image gives its split if it has such a name, a tag its class.
    """
    path = existing(source)
    if path.is_dir():
        files = [path / "annotations.xml"] if (path / "annotations.xml").is_file() else []
        files = files or sorted(path.glob("*.xml"))
        if len(files) != 1:
            raise InputError(f"{path}: there are {len(files)} XML files in it; name one")
        path = files[0]
    root = read_xml(path, "annotations")
    if root.find("track") is not None:
        what = "it is of a video (CVAT for video); export as CVAT for images 1.1"
        raise InputError(f"{path}: {what}")
    images = root.findall("image")

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for row, element in enumerate(images):
            name, where = element.get("name") or "", f"image {element.get('id', row)}"
            with log.part(f"{where} {name}".strip(), "export the file again"):
                size = size_of(element.get("width"), element.get("height"))
                if not name or size is None:
                    raise ValueError(f"it has no {'width and height' if name else 'name'}")
                shapes: list[Annotation] = []
                tags: set[str] = set()
                for place, child in enumerate(element, 1):
                    spot, label = f"{child.tag} {place}", child.get("label") or ""
                    with log.part(f"{where} {name}, {spot}", "correct or remove the shape"):
                        if child.get("source") == "auto":
                            log.note("marks of models are not read")
                        elif child.tag == "tag":
                            tags.add(label)
                        elif (shape := _cvat_shape(child, size)) is None:
                            log.note(f"elements <{child.tag}> are not read")
                        else:
                            shapes.append(Annotation(shape, label, where=spot))
                labels, split = tuple(sorted(tags - {""})), split_of(element.get("subset") or "")
                yield AnnotatedImage(name, size, tuple(shapes), labels, split, where=where)

    classes = [(one.findtext("name") or "").strip() for one in root.findall("meta//label")]
    listed = [*dict.fromkeys(filter(None, classes))]
    return ImportedAnnotations("cvat", path, read, listed, (), len(images))


def _cvat_shape(element: Element, size: tuple[int, int]) -> Shape | None:
    """Shape of an element; None for an element that is no shape."""

    def values(*names: str) -> list[float]:
        return [number(element.get(name), name) for name in names]

    rotation = number(element.get("rotation", 0), "rotation")
    match element.tag:
        case "box":
            left, top, right, bottom = values("xtl", "ytl", "xbr", "ybr")
            return Box(left, top, right - left, bottom - top, rotation)
        case "ellipse":
            x, y, radius_x, radius_y = values("cx", "cy", "rx", "ry")
            return Ellipse(x, y, radius_x, radius_y, rotation)
        case "mask":
            column, row, wide, high = (
                whole(element.get(name), name) for name in ("left", "top", "width", "height")
            )
            fits = 0 <= column <= size[0] - wide and 0 <= row <= size[1] - high
            if not fits or min(wide, high) < 1:
                raise ValueError(f"the mask of {wide}×{high} at {column}, {row} leaves the image")
            # The encoding of COCO, but row by row: of the transposed mask.
            counts = (element.get("rle") or "").split(",")
            return Mask(decode_rle(counts, high, wide).T.copy(), column, row)
        case "polygon" | "polyline" | "points":
            text = element.get("points") or ""
            pairs = [pair.split(",") for pair in text.split(";")]
            least = {"polygon": 3, "polyline": 2, "points": 1}[element.tag]
            if any(len(pair) != 2 for pair in pairs) or "_" in text:
                raise ValueError(f"points are {shown(text)}, not {least} or more x,y;x,y")
            points = points_of(pairs, least)
            if element.tag == "polygon":
                return Polygon((points,))
            return Polyline(points) if element.tag == "polyline" else Points(points)
        case "skeleton" | "cuboid":  # else their image would have no shape
            raise ValueError(f"<{element.tag}> is not read; mark it with another tool")
    return None
