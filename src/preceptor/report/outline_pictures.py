"""Pictures of images with the outlines of several masks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.data.outlines import outline
from preceptor.report.palette import DARK

LONGEST = 480  # pixels of the longer side of a picture
QUALITY = 80
_NAMES = ("baseline1", "student", "ceiling", "centre", "distilled", "mixed", "shuffled", "bad")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Stroke:
    """Line of one person: bright on a dark casing, so that it is seen on any image."""

    color: str
    dash: str

    def draw(self, path: str, width: float = 2.0) -> Markup:
        """SVG elements of a path."""
        dash = f' stroke-dasharray="{self.dash}"' if self.dash else ""
        same = 'fill="none" vector-effect="non-scaling-stroke" stroke-linejoin="round"'
        return Markup(
            f'<path d="{escape(path)}" {same} stroke="#000" stroke-opacity="0.65" '
            f'stroke-width="{width + 2:g}"/>'
            f'<path d="{escape(path)}" {same} stroke="{self.color}" stroke-width="{width:g}"'
            f"{dash}/>"
        )


def stroke(number: int) -> Stroke:
    """Line of the person of a number; the dashes differ where colors repeat, and before."""
    return Stroke(DARK[_NAMES[number % len(_NAMES)]], _DASHES[number % len(_DASHES)])


def outlined(
    image: Path | str,
    masks: Mapping[str, NDArray[np.bool_]],
    strokes: Mapping[str, Stroke],
    about: str,
) -> Markup:
    """Image with the outline of each mask, as an SVG element.

    Args:
        image: Image file or location.
        masks: bool of shape (height, width) of each person, over the whole image.
        strokes: Line of each person.
        about: Text for people who do not see the picture.

    Raises:
        ImageError: The image cannot be read.
    """
    pixels = Image.fromarray(decode_image(image, 3))
    scale = min(1.0, LONGEST / max(pixels.size))
    width, height = (max(1, round(side * scale)) for side in pixels.size)
    buffer = io.BytesIO()
    pixels.resize((width, height), Image.Resampling.BILINEAR).save(
        buffer, "JPEG", quality=QUALITY, optimize=True
    )
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    lines = Markup("").join(
        strokes[name].draw(_path(mask, width, height)) for name, mask in masks.items() if mask.any()
    )
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about)}">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}"/>'
        f"{lines}</svg>"
    )


def _path(mask: NDArray[np.bool_], width: int, height: int) -> str:
    """Outlines as the path of an SVG element of a size."""
    high, wide = mask.shape
    across, down = width / wide, height / high
    parts = []
    for region in outline(mask, 0.5 / max(across, down)):
        for ring in region.rings:
            points = " ".join(f"{x * across:.1f},{y * down:.1f}" for x, y in ring.tolist())
            parts.append(f"M{points}Z")
    return "".join(parts)
