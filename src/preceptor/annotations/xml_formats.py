"""Pascal VOC, and CVAT's XML 1.1 for images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from preceptor.annotations.files import (
    existing,
    files_of,
    number,
    points_of,
    read_xml,
    shown,
    size_of,
    split_of,
    split_of_folders,
    whole,
)
from preceptor.annotations.json_formats import decode_rle
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
from preceptor.data.images import image_suffixes
from preceptor.errors import InputError


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
