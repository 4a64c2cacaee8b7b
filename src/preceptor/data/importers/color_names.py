"""Names of classes by the color of their pixels."""

from __future__ import annotations

import re
from pathlib import Path

from preceptor.data.importers.source_files import lines_of
from preceptor.errors import Problem, ProblemsError

Color = tuple[int, int, int]

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""Classes of Pascal VOC in the order of their values in segmentations, from 1."""


def voc_color(value: int) -> Color:
    """Color of a class in the segmentations of Pascal VOC.

    The bits of the value are dealt to red, green and blue in turn, the highest ones first.

    Example:
        >>> [voc_color(value) for value in (1, 2, 15, 255)]
        [(128, 0, 0), (0, 128, 0), (192, 128, 128), (224, 224, 192)]
    """
    parts = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            parts[channel] |= (value >> (3 * place + channel) & 1) << (7 - place)
    return parts[0], parts[1], parts[2]


def read_labelmap(path: Path) -> dict[Color, str]:
    """Names of classes by color from `labelmap.txt` of CVAT: lines `name:r,g,b:parts:actions`.

    A class without a color has that of its place in the palette of Pascal VOC.

    Raises:
        ProblemsError: Lines are of another form, or a color occurs twice.
        InputError: It is not UTF-8 text.
    """
    found: dict[Color, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        numbers = [one.strip() for one in rest.split(":")[0].split(",")]
        if numbers == [""]:
            numbers = [str(one) for one in voc_color(len(found))]
        good = len(numbers) == 3 and all(re.fullmatch("[0-9]{1,3}", one) for one in numbers)
        values = [int(one) for one in numbers] if good else []
        if not good or max(values) > 255 or not name.strip():
            what = f"{line[:60]!r} is not name:red,green,blue::"
            problems.append(Problem(f"line {number}", what, "correct it"))
        elif (color := (values[0], values[1], values[2])) in found:
            what = f"the color {color} is that of {found[color]!r} too"
            problems.append(Problem(f"line {number}", what, "give it a color of its own"))
        else:
            found[color] = name.strip()
    if problems:
        raise ProblemsError(str(path), problems)
    return found
