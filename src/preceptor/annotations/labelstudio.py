"""Label Studio's JSON export, and the run-length encoding of its brush."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.annotations.files import (
    files_of,
    number,
    points_of,
    read_json,
    shown,
    size_of,
    text_of,
)
from preceptor.annotations.shapes import (
    MAX_PIXELS,
    AnnotatedImage,
    Annotation,
    Box,
    Ellipse,
    ImportedAnnotations,
    Log,
    Mask,
    Pixels,
    Points,
    Polygon,
    Shape,
    rotate,
)
from preceptor.errors import InputError

_SHAPES = ("rectangle", "polygon", "ellipse", "brush", "keypoint")
# Keys of a value that is of a region; a choice that has one belongs to the region alone.
_GEOMETRY = {"x", "y", "points", "rle", "vertices", "sequence", "start", "end"}
_IMAGE_KEYS = ("image", "img", "url", "ocr")
# Bits of the run lengths that the editor writes.
_SIZES = (3, 4, 8, 16)


def read_labelstudio(
    source: Path | str | Sequence[Path | str], *, image_key: str = ""
) -> ImportedAnnotations:
    """Label Studio's JSON export (not JSON_MIN): rectangles, polygons, ellipses, brush, keypoints.

    Coordinates are percent of the image; they become pixels of `original_width` and
    `original_height`. A rectangle is turned about its upper left corner. Results of one annotation
    belong to its annotator; predictions are kept apart. A task with an annotation that was not
    cancelled was examined. The class of a shape may be a result of its own with the same id, as
    the tags `Labels` and `Rectangle` write it. `Choices` on the whole image give its class;
    choices on a single shape (`perRegion`) do not.

    Args:
        source: One or more JSON files, or a folder with them.
        image_key: Key of the image in `data`; "" = the key that the results name.

    Raises:
        InputError: A file cannot be read or is not of this format.
    """
    paths = files_of(source, ".json")

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for path in paths:
            of = str(path) if len(paths) > 1 else ""
            tasks = read_json(path)
            if not isinstance(tasks, list):
                raise InputError(
                    f"{path}: it is not a Label Studio export, which is a list of tasks; export "
                    "as JSON"
                )
            for row, task in enumerate(tasks):
                where = f"tasks[{row}]"
                try:
                    yield _Task(task, where, of, log).image(image_key)
                except ValueError as error:
                    log.error(f"{of}, {where}" if of else where, error, "export it again")

    first = Path(source if isinstance(source, str | Path) else source[0])
    return ImportedAnnotations("labelstudio", first, read)


class _Task:
    """One task of an export."""

    def __init__(self, task: Any, where: str, of: str, log: Log) -> None:
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise ValueError(f"{shown(task)} has no `data`; export as JSON, not as JSON_MIN")
        self.task, self.where, self.of, self.log = task, where, of, log
        self.size: tuple[int, int] | None = None
        self.labels: list[str] = []
        self.keys: set[str] = set()
        self.shapes: list[Annotation] = []

    def problem(self, where: str, error: ValueError) -> None:
        place = ", ".join(filter(None, (self.of, self.where, where)))
        self.log.error(place, error, "correct or remove the result")

    def image(self, image_key: str) -> AnnotatedImage:
        """Image of the task."""
        persons: list[str] = []
        seconds: float | None = None
        examined: bool | None = None
        done = self.task.get("annotations", self.task.get("completions"))
        if isinstance(done, list):
            examined = False
            for place, one in enumerate(done):
                if isinstance(one, dict) and one.get("was_cancelled"):
                    self.log.note("annotations that were skipped are not read")
                    continue
                person = _person(one.get("completed_by")) if isinstance(one, dict) else ""
                self._results(one, f"annotations[{place}]", person, prediction=False)
                examined = True
                persons.append(person)
                spent = one.get("lead_time") if isinstance(one, dict) else None
                if isinstance(spent, int | float) and 0 <= spent < 1e12:
                    seconds = (seconds or 0.0) + spent
        predictions = self.task.get("predictions")
        for place, one in enumerate(predictions if isinstance(predictions, list) else []):
            if isinstance(one, dict):  # else an id only
                model = text_of(one.get("model_version"))
                self._results(one, f"predictions[{place}]", model, prediction=True)
        return AnnotatedImage(
            self._name(image_key),
            self.size,
            tuple(self.shapes),
            tuple(self.labels),
            examined=examined,
            annotators=tuple(dict.fromkeys(filter(None, persons))),
            seconds=seconds,
            where=self.where,
            of=self.of,
        )

    def _name(self, image_key: str) -> str:
        """Name of the image in the data of the task."""
        data = {key: value for key, value in self.task["data"].items() if isinstance(value, str)}
        keys = [image_key] if image_key else sorted(self.keys & set(data))
        keys = keys or [key for key in _IMAGE_KEYS if key in data] or list(data)
        keys = [key for key in keys if data.get(key)]
        if len(keys) == 1 or (keys and keys[0] in _IMAGE_KEYS):
            return data[keys[0]]
        texts = f"several texts ({', '.join(keys[:4])})" if keys else "no image"
        raise ValueError(
            f"there is {texts} in data, {shown(self.task['data'])}; export tasks with one image "
            "each, or name its key with --image-key"
        )

    def _results(self, holder: Any, where: str, person: str, *, prediction: bool) -> None:
        results = holder.get("result") if isinstance(holder, dict) else None
        if not isinstance(results, list):
            self.problem(where, ValueError(f"{shown(holder)} has no list of results"))
            return
        kinds = [_kind(one) for one in results]
        ids = [text_of(one.get("id")) if isinstance(one, dict) else "" for one in results]
        shapes = {known for known, kind in zip(ids, kinds, strict=True) if kind in _SHAPES} - {""}
        # The tag Labels names the class of a shape apart from it, with the same id.
        named = {
            known: one["value"]
            for one, known, kind in zip(results, ids, kinds, strict=True)
            if kind == "labels" and known and isinstance(one.get("value"), dict)
        }
        for place, (result, known, kind) in enumerate(zip(results, ids, kinds, strict=True)):
            spot = f"{where}.result[{place}]"
            value = result.get("value") if isinstance(result, dict) else None
            try:
                if not kind:
                    raise ValueError(f"{shown(result)} has no type")
                if kind == "choices" and isinstance(value, dict) and not prediction:
                    self._choices(value, known in shapes)
                elif kind == "labels" and known in shapes:
                    continue
                elif kind not in _SHAPES or not isinstance(value, dict):
                    self.log.note(f"results of the type {result['type']!r} are not read")
                else:
                    shape = self._shape(kind, value, result)
                    label = _label(value) or _label(named.get(known, {}))
                    self.shapes.append(Annotation(shape, label, person, prediction, spot))
            except ValueError as error:
                self.problem(spot, error)

    def _choices(self, value: dict[str, Any], of_shape: bool) -> None:
        if of_shape or _GEOMETRY & set(value):
            self.log.note("choices that belong to a single shape are not read")
            return
        chosen = value.get("choices")
        if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
            raise ValueError(f"choices are {shown(chosen)}; export it again")
        self.labels += chosen

    def _shape(self, kind: str, value: dict[str, Any], result: dict[str, Any]) -> Shape:
        """Shape of a result."""
        if isinstance(result.get("to_name"), str):
            self.keys.add(result["to_name"])
        size = size_of(result.get("original_width"), result.get("original_height"))
        if size is None:
            raise ValueError("it has no original_width and original_height; export it again")
        if size != (self.size or size):
            raise ValueError(f"it is for another size of the image, {size[0]}×{size[1]}")
        self.size = size
        if turned := number(result.get("image_rotation") or 0, "image_rotation"):
            raise ValueError(
                f"the image was turned by {turned:g}° in the editor, which is not read"
            )
        scale = np.array(size) / 100
        if kind == "polygon":
            return Polygon((points_of(value.get("points"), 3) * scale,))
        if kind == "brush":
            return Mask(decode_brush(value.get("rle"), *size))
        x, y = (
            number(value.get(name), name) * side for name, side in zip("xy", scale, strict=True)
        )
        rotation = number(value.get("rotation", 0), "rotation")
        if kind == "keypoint":
            # Its width is percent of the image's width; 0 or less leaves the radius to the user.
            radius = number(value.get("width", 0), "width") * float(scale[0]) / 2
            return Points(np.array([[x, y]]), radius if radius > 0 else None)
        names = ("radiusX", "radiusY") if kind == "ellipse" else ("width", "height")
        across, down = (
            number(value.get(name), name) * float(side)
            for name, side in zip(names, scale, strict=True)
        )
        x, y = float(x), float(y)
        if kind == "ellipse":
            return Ellipse(x, y, across, down, rotation)
        middle = rotate(np.array([[x + across / 2, y + down / 2]]), (x, y), rotation)[0]
        left, top = float(middle[0]) - across / 2, float(middle[1]) - down / 2
        return Box(left, top, across, down, rotation)


def _kind(result: Any) -> str:
    """Kind of a result, "" if it has none: `rectanglelabels` and `rectangle` are one."""
    kind = result.get("type") if isinstance(result, dict) else None
    kind = kind.lower() if isinstance(kind, str) else ""
    return kind.removesuffix("labels") if kind != "labels" else kind


def _person(value: Any) -> str:
    """Name of an annotator: an id, or an object with an email."""
    if isinstance(value, dict):
        return text_of(value.get("email") or value.get("username") or value.get("id"))
    return text_of(value)


def _label(value: dict[str, Any]) -> str:
    """Class of a shape, "" if it has none."""
    for key, labels in value.items():
        if key.endswith("labels") and isinstance(labels, list) and labels:
            if len(labels) > 1:
                raise ValueError("it has several classes; give a shape one class")
            return text_of(labels[0])
    return ""


def decode_brush(rle: Any, width: int, height: int) -> Pixels:
    """Opacity of an encoded brush stroke.

    The bytes are RGBA pixels, packed bit by bit from the most significant one: 32 bits for the
    number of values, 5 for the bits of a value minus 1, four times 4 for the bits of run lengths
    minus 1; then blocks with 1 bit (1 = one value repeated, 0 = values listed), 2 bits for the kind
    of length, the length minus 1, and the values.

    Args:
        rle: Whole numbers from 0 to 255.
        width, height: Size of the image in pixels.

    Returns:
        uint8 of shape (height, width), 0 = not painted.

    Raises:
        ValueError: The bytes are damaged or of another size.
    """
    try:
        if not isinstance(rle, list):
            raise TypeError("not a list")
        data = bytes(rle)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("the RLE is not a list of whole numbers from 0 to 255") from None
    total = 4 * width * height
    if total > 4 * MAX_PIXELS or int.from_bytes(data[:4]) != total:
        raise ValueError(
            f"the RLE has {int.from_bytes(data[:4]):,} values, not 4 × {width} × {height}; the "
            "image has another size"
        )
    # Text, since int() of a slice is the fastest way to read a few bits.
    text = (np.unpackbits(np.frombuffer(data, np.uint8)) + np.uint8(48)).tobytes()
    at = 32

    def take(bits: int) -> int:
        nonlocal at
        at += bits
        if at > len(text):
            raise ValueError("the RLE is cut short")
        return int(text[at - bits : at], 2)

    word, sizes = take(5) + 1, [take(4) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(f"the RLE has values of {word} bits; 8 are expected")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_repeated, size = take(1), sizes[take(2)]
        length = take(size) + 1
        if done + length > total:
            raise ValueError("the runs of the RLE are longer than the image")
        values[done : done + length] = (
            take(word) if is_repeated else [take(word) for _ in range(length)]
        )
        done += length
    return np.ascontiguousarray(values[3::4].reshape(height, width))


def encode_brush(mask: Pixels) -> list[int]:
    """Encoded brush stroke of a mask; inverse of `decode_brush`.

    Example:
        >>> mask = np.array([[0, 255], [255, 255]], np.uint8)
        >>> decode_brush(encode_brush(mask), 2, 2).tolist()
        [[0, 255], [255, 255]]
    """
    flat = mask.reshape(-1)
    # All four channels of a pixel have one value, so that runs of pixels are runs of values.
    starts = np.append(0, np.flatnonzero(np.diff(flat)) + 1)
    lengths = np.diff(np.append(starts, len(flat))) * 4
    chunks = [format(len(flat) * 4, "032b"), format(7, "05b")]
    chunks += [format(size - 1, "04b") for size in _SIZES]
    for length, value in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        while length > 0:
            run = min(length, 1 << _SIZES[-1])
            kind = next(kind for kind, size in enumerate(_SIZES) if run <= 1 << size)
            chunks.append(f"1{kind:02b}{run - 1:0{_SIZES[kind]}b}{value:08b}")
            length -= run
    bits = np.frombuffer("".join(chunks).encode("ascii"), np.uint8) - 48
    return np.packbits(bits).tolist()
