"""Importer of Label Studio's JSON export, task by task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.importers.brush_rle import decode_brush
from preceptor.data.importers.json_stream import JsonStream
from preceptor.data.importers.json_values import number, pairs, shown, size_of, text_of
from preceptor.data.importers.rings import rotate
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    Box,
    Ellipse,
    ImportedAnnotations,
    Log,
    Mask,
    Points,
    Polygon,
    Shape,
)
from preceptor.data.importers.source_files import files_below
from preceptor.errors import InputError

_Size = tuple[int, int]
_FIX = "correct or remove the result"
# Kinds of result that are shapes; the key of their classes is the same.
_SHAPES = {
    "rectanglelabels",
    "rectangle",
    "polygonlabels",
    "polygon",
    "ellipselabels",
    "ellipse",
    "brushlabels",
    "brush",
    "keypointlabels",
    "keypoint",
}
# Keys of a value that is of a region; a choice that has one belongs to the region alone.
_GEOMETRY = {"x", "y", "points", "rle", "vertices", "sequence", "start", "end"}


def read_labelstudio(
    source: Path | str | Sequence[Path | str], *, image_key: str = ""
) -> ImportedAnnotations:
    """Label Studio's JSON export (not JSON_MIN): rectangles, polygons, ellipses, brush, keypoints.

    Coordinates are percent of the image; they become pixels of `original_width` and
    `original_height`. A rectangle is turned about its upper left corner. Results of one annotation
    belong to its annotator; predictions are kept apart. A task with an annotation that was not
    cancelled was examined. The class of a shape may be a result of its own with the same id, as of
    the tags `Labels` and `Rectangle`. `Choices` on the whole image give its class; those on a
    single shape (`perRegion`) do not.

    Args:
        source: One or more JSON files, or a folder with them.
        image_key: Key of the image in `data`; "" = the key that the results name.

    Raises:
        InputError: A file cannot be read or is not of this format.
    """
    given = [Path(source)] if isinstance(source, str | Path) else [Path(one) for one in source]
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            paths += files_below(path, ".json")
        elif path.is_file():
            paths.append(path)
        else:
            raise InputError(f"{path}: there is no such file; correct the path")
    if not paths:
        raise InputError(f"{given[0]}: there is no JSON file in it; name the exported file")

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path in paths:
            of = str(path) if len(paths) > 1 else ""
            with JsonStream(path) as stream:
                if stream.peek() != "[":
                    raise InputError(
                        f"{path}: it is not a Label Studio export, which is a list of tasks; "
                        "export as JSON"
                    )
                for row, value in enumerate(stream.elements()):
                    record = _Task(f"tasks[{row}]", value, image_key, log, of).record()
                    if record is not None:
                        yield record
                stream.end()

    return ImportedAnnotations("labelstudio", given[0], read)


class _Task:
    """One task of an export."""

    def __init__(self, where: str, value: Any, image_key: str, log: Log, of: str) -> None:
        self.where, self.value, self.image_key, self.log, self.of = (
            where,
            value,
            image_key,
            log,
            of,
        )
        self.size: _Size | None = None
        self.labels: list[str] = []
        self.keys: set[str] = set()
        self.shapes: list[Annotation] = []

    def problem(self, where: str, what: str, fix: str = _FIX) -> None:
        self.log.problem(", ".join(filter(None, (self.of, self.where, where))), what, fix)

    def record(self) -> AnnotatedImage | None:
        """Image of the task; None if there is a problem with the whole task."""
        task = self.value
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            self.problem("", f"{shown(task)} has no `data`", "export as JSON, not as JSON_MIN")
            return None
        persons: list[str] = []
        seconds: float | None = None
        examined: bool | None = None
        done = task.get("annotations", task.get("completions"))
        if isinstance(done, list):
            examined = False
            for index, one in enumerate(done):
                where = f"annotations[{index}]"
                if not isinstance(one, dict):
                    self.problem(where, f"{shown(one)} is not an object")
                    continue
                if one.get("was_cancelled"):
                    self.log.note("annotations that were skipped are not read")
                    continue
                person = _person(one.get("completed_by"))
                examined = True
                persons.append(person)
                spent = number(one.get("lead_time"))
                if spent is not None and spent >= 0:
                    seconds = (seconds or 0.0) + spent
                created = text_of(one.get("created_at"))
                self._results(one.get("result"), where, person, created, prediction=False)
        predictions = task.get("predictions")
        for index, one in enumerate(predictions if isinstance(predictions, list) else []):
            if isinstance(one, dict):  # else an id only
                model = text_of(one.get("model_version"))
                where = f"predictions[{index}]"
                self._results(one.get("result"), where, model, "", prediction=True)
        name = self._name(task["data"])
        if name is None:
            return None
        return AnnotatedImage(
            name,
            self.size,
            tuple(self.shapes),
            tuple(self.labels),
            examined=examined,
            annotators=tuple(dict.fromkeys(filter(None, persons))),
            seconds=seconds,
            where=self.where,
            of=self.of,
        )

    def _name(self, data: dict[str, Any]) -> str | None:
        """Name of the image in the data of the task."""
        keys = [self.image_key] if self.image_key else sorted(self.keys & set(data))
        if not keys:
            keys = [key for key in ("image", "img", "url", "ocr") if isinstance(data.get(key), str)]
        if not keys:
            keys = [key for key, value in data.items() if isinstance(value, str)]
        keys = [key for key in keys if isinstance(data.get(key), str) and data[key]]
        if len(keys) == 1 or (keys and keys[0] in ("image", "img", "url", "ocr")):
            return str(data[keys[0]])
        found = f"several texts ({', '.join(keys[:4])})" if keys else f"no image in {shown(data)}"
        self.problem("data", f"there is {found}", "export tasks with one image each")
        return None

    def _results(
        self, results: Any, where: str, person: str, created: str, *, prediction: bool
    ) -> None:
        if not isinstance(results, list):
            self.problem(where, f"result is {shown(results)}, not a list")
            return
        shapes = {
            text_of(one.get("id"))
            for one in results
            if isinstance(one, dict) and text_of(one.get("type")).lower() in _SHAPES
        } - {""}
        named = _named_regions(results)
        for index, result in enumerate(results):
            place = f"{where}.result[{index}]"
            if not isinstance(result, dict) or not isinstance(result.get("type"), str):
                self.problem(place, f"{shown(result)} has no type")
                continue
            kind, value = result["type"].lower(), result.get("value")
            if kind == "choices" and isinstance(value, dict) and not prediction:
                if text_of(result.get("id")) in shapes or _GEOMETRY & set(value):
                    self.log.note("choices that belong to a single shape are not read")
                else:
                    self._choice(value, place)
                continue
            if kind == "labels" and text_of(result.get("id")) in shapes:
                continue  # the class of a shape, which `_named_regions` has found
            if kind not in _SHAPES or not isinstance(value, dict):
                self.log.note(f"results of the type {result['type']!r} are not read")
                continue
            if isinstance(result.get("to_name"), str) and isinstance(self.value["data"], dict):
                self.keys.add(result["to_name"])
            size = size_of(result.get("original_width"), result.get("original_height"))
            if size is None:
                stated = f"{result.get('original_width')!r} × {result.get('original_height')!r}"
                self.problem(place, f"the size of the image is {stated}", "export it again")
                continue
            if self.size is not None and size != self.size:
                self.problem(
                    place,
                    f"it is for an image of {size[0]}×{size[1]}, others of this task for "
                    f"{self.size[0]}×{self.size[1]}",
                )
                continue
            self.size = size
            shape = _shape(kind, value, size, number(result.get("image_rotation")))
            if isinstance(shape, str):
                self.problem(place, shape)
                continue
            label = _label(value)
            if label == "":
                label = named.get(text_of(result.get("id")), "")
            if label is None:
                self.problem(place, "it has several classes", "give a shape one class")
                continue
            self.shapes.append(Annotation(shape, label, person, created, prediction, place))

    def _choice(self, value: dict[str, Any], place: str) -> None:
        chosen = value.get("choices")
        if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
            self.problem(place, f"choices are {shown(chosen)}", "export it again")
        else:
            self.labels += chosen


def _person(value: Any) -> str:
    """Name of an annotator: an id, or an object with an email."""
    if isinstance(value, dict):
        return text_of(value.get("email") or value.get("username") or value.get("id"))
    return text_of(value)


def _named_regions(results: list[Any]) -> dict[str, str | None]:
    """Class of each region by its id, where the tag Labels names it apart from the shape.

    None if there are several.
    """
    found: dict[str, str | None] = {}
    for one in results:
        if not isinstance(one, dict) or not isinstance(one.get("value"), dict):
            continue
        region = text_of(one.get("id"))
        if region and text_of(one.get("type")).lower() == "labels":
            found[region] = _label(one["value"])
    return found


def _label(value: dict[str, Any]) -> str | None:
    """Class of a shape, "" if it has none; None if it has several."""
    for key, labels in value.items():
        if key.endswith("labels") and isinstance(labels, list):
            if len(labels) > 1:
                return None
            return text_of(labels[0]) if labels else ""
    return ""


def _shape(kind: str, value: dict[str, Any], size: _Size, turned: float | None) -> Shape | str:
    """Shape of a result, or what is wrong with it."""
    if turned:
        return f"the image was turned by {turned:g}° in the editor, which is not supported"
    width, height = size
    kind = kind.removesuffix("labels")
    if kind == "polygon":
        points = pairs(value.get("points"))
        if points is None or len(points) < 3:
            return "points are not a list of 3 or more pairs of numbers"
        return Polygon((points * (width / 100, height / 100),))
    if kind == "brush":
        if value.get("format", "rle") != "rle" or not isinstance(value.get("rle"), list):
            return "the brush has no RLE"
        try:
            return Mask(decode_brush(value["rle"], width, height))
        except ValueError as error:
            return str(error)
    names = {
        "rectangle": ("x", "y", "width", "height"),
        "ellipse": ("x", "y", "radiusX", "radiusY"),
        "keypoint": ("x", "y", "width"),
    }[kind]
    value = {"width": 0} | value if kind == "keypoint" else value
    found = [number(value.get(name)) for name in names]
    if any(one is None for one in found):
        bad = next(name for name, one in zip(names, found, strict=True) if one is None)
        return f"{bad} is {shown(value.get(bad))}, not a finite number"
    values = [float(one) for one in found if one is not None]
    rotation = number(value.get("rotation", 0))
    if rotation is None:
        return f"rotation is {shown(value.get('rotation'))}"
    x, y = values[0] * width / 100, values[1] * height / 100
    if kind == "keypoint":
        # Its width is percent of the image's width; 0 or less leaves the radius to the user.
        radius = values[2] * width / 200
        return Points(np.array([[x, y]]), radius if radius > 0 else None)
    across, down = values[2] * width / 100, values[3] * height / 100
    if kind == "ellipse":
        return Ellipse(x, y, across, down, rotation)
    middle = rotate(np.array([[x + across / 2, y + down / 2]]), (x, y), rotation)[0]
    left, top = float(middle[0]) - across / 2, float(middle[1]) - down / 2
    return Box(left, top, across, down, rotation)
