"""Colors of the report's page, light and dark, and of its figures."""

from __future__ import annotations

from preceptor.report.overlay import COLORS, MAGMA

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
    "centre": ("#a3327c", "#f191c9"),
    "ceiling": ("#1d7a45", "#74d29a"),
    "distilled": ("#7d6608", "#e0c55a"),
    "mixed": ("#0e7490", "#67d1e6"),
    "teacher": ("#7a5c00", "#e6c46a"),
    "mapper": ("#3d6a00", "#b3d27a"),
    "mapper_all": ("#006a5b", "#6fd3c0"),
    "pca": ("#4d6b12", "#b7d36b"),
    "shuffled_human": ("#b3362a", "#ff9d8f"),
    "masked": ("#6d4c41", "#cbb0a5"),
    "dfr": ("#0f6f66", "#7fd6cb"),
}
LIGHT = {name: light for name, (light, _) in _COLORS.items()}
"""Colors by name, of a light page and of figure files; on the page they are CSS variables."""
DARK = {name: dark for name, (_, dark) in _COLORS.items()}
"""The same names on a dark page."""


def series_color(key: str) -> str:
    """Light color of a row of the tables; variants have the Student's.

    Example:
        >>> series_color("baseline1_started") == LIGHT["baseline1"]
        True
    """
    if key == "any":  # the best of any map
        return LIGHT["shuffled"]
    return LIGHT.get(key.removesuffix("_started").removesuffix("_paper"), LIGHT["student"])


def magma(count: int) -> list[str]:
    """Colors of the map at even distances, from dark to bright, in hexadecimal.

    Example:
        >>> magma(2)
        ['#000004', '#fcfdbf']
    """
    last = COLORS - 1
    places = [round(last * number / (count - 1)) for number in range(count)]
    return [f"#{MAGMA[3 * place : 3 * place + 3].hex()}" for place in places]
