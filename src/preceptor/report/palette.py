"""Colors of the report's page, light and dark, of its figures, and of maps laid over images."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLORS = {
    "paper": ("#fff", "#14171b"),
    "raised": ("#f5f6f8", "#1d2127"),
    "ink": ("#16191d", "#e8eaed"),
    "soft": ("#545b66", "#a9b1bc"),
    "rule": ("#d9dde3", "#363c45"),
    "accent": ("#1b58b8", "#8bb8ff"),
    "tint": ("#e9f0fb", "#1b2a42"),
    "shade": ("rgb(0 0 0 / 0.16)", "rgb(255 255 255 / 0.16)"),
    "good": ("#1d6b3c", "#7fd19c"),
    "warn": ("#8a4b00", "#f2b765"),
    "bad": ("#a4262c", "#ff9a96"),
    "warn-tint": ("#fdf3e4", "#33270f"),
    "baseline1": ("#a85200", "#f0a35e"),
    "baseline2": ("#5d6673", "#aab3bf"),
    "student": ("#1b58b8", "#8bb8ff"),
    "shuffled": ("#7b46b3", "#c6a4f2"),
    "ceiling": ("#1d7a45", "#74d29a"),
    "mapper": ("#3d6a00", "#b3d27a"),
    "mapper_all": ("#006a5b", "#6fd3c0"),
}
LIGHT = {name: light for name, (light, _) in _COLORS.items()}
"""Colors by name, of a light page and of figure files; on the page they are CSS variables."""
DARK = {name: dark for name, (_, dark) in _COLORS.items()}
"""The same names on a dark page."""


def series_color(key: str) -> str:
    """Light color of a row of the tables; the best of any map has the color of shuffled ones."""
    return LIGHT["shuffled" if key == "any" else key]


def magma(count: int) -> list[str]:
    """Colors of the map at even distances, from dark to bright, in hexadecimal."""
    places = [round((COLORS - 1) * number / (count - 1)) for number in range(count)]
    return [f"#{MAGMA[3 * at : 3 * at + 3].hex()}" for at in places]


# Magma by Nathaniel Smith and Stéfan van der Walt (CC0): perceptually uniform, also in grey.
# Written out, so that 64 colors need no plotting library; hexadecimal, from dark to bright.
MAGMA = bytes.fromhex(
    """
    000004 020109 030312 06051a 0a0822 0e0b2b 130d34 180f3d
    1d1147 221150 29115a 2f1163 36106b 3d0f71 440f76 4a1079
    52137c 59157e 5f187f 651a80 6b1d81 721f81 782281 7e2482
    842681 8b2981 912b81 982d80 9e2f7f a5317e ab337c b2357b
    ba3878 c03a76 c73d73 cd4071 d3436e d9466b df4a68 e44f64
    e95462 ed5a5f f1605d f4675c f66e5c f8765c fa7d5e fb8560
    fc8e64 fd9668 fe9d6c fea571 feac76 feb47b febb81 fec287
    feca8d fed194 fed89a fde0a1 fde7a9 fceeb0 fcf6b8 fcfdbf
    """
)

COLORS = len(MAGMA) // 3
"""Number of colors."""


def colored(saliency: NDArray[np.float32]) -> Image.Image:
    """Map in [0, 1] as a picture with a palette of colors, whose number is the level."""
    levels = (saliency * (COLORS - 1)).round().astype(np.uint8)
    picture = Image.fromarray(levels, "P")
    picture.putpalette(MAGMA)
    return picture


def opacities() -> bytes:
    """Opacity of each color, 0 to 255; it increases with saliency."""
    levels = np.linspace(0, 1, COLORS)
    return ((0.25 + 0.5 * levels) * 255).round().astype(np.uint8).tobytes()


def data_uri(picture: Image.Image, form: str, **how: Any) -> str:
    """Picture as a data URI, in a format of Pillow with its options."""
    buffer = io.BytesIO()
    picture.save(buffer, form, optimize=True, **how)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def laid_over(pixels: NDArray[np.uint8], saliency: NDArray[np.float32]) -> Image.Image:
    """Map over the grayscale image."""
    colors = np.frombuffer(MAGMA, np.uint8).reshape(COLORS, 3).astype(np.float32)
    opacity = np.frombuffer(opacities(), np.uint8)[:, None] / np.float32(255)
    levels = np.asarray(colored(saliency))
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)[..., None]
    mixed = (colors * opacity)[levels] + grey * (1 - opacity)[levels]
    return Image.fromarray(mixed.round().astype(np.uint8))
