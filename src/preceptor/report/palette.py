"""Colors of the report: of the page, light and dark, and of its figures."""

from __future__ import annotations

from preceptor.report.overlay import COLORS, MAGMA

LIGHT = {
    "paper": "#fff",
    "raised": "#f5f6f8",
    "ink": "#16191d",
    "soft": "#545b66",
    "rule": "#d9dde3",
    "accent": "#1b58b8",
    "tint": "#e9f0fb",
    "shade": "rgb(0 0 0 / 0.16)",
    "good": "#1d6b3c",
    "warn": "#8a4b00",
    "bad": "#a4262c",
    "warn-tint": "#fdf3e4",
    "baseline1": "#a85200",
    "baseline2": "#5d6673",
    "student": "#1b58b8",
    "shuffled": "#7b46b3",
    "centre": "#a3327c",
    "ceiling": "#1d7a45",
    "distilled": "#7d6608",
    "mixed": "#0e7490",
    "teacher": "#7a5c00",
    "mapper": "#3d6a00",
    "mapper_all": "#006a5b",
    "pca": "#4d6b12",
    "shuffled_human": "#b3362a",
    "masked": "#6d4c41",
    "dfr": "#0f6f66",
}
"""Colors by name, of a light page and of figure files; on the page they are CSS variables."""

DARK = {
    "paper": "#14171b",
    "raised": "#1d2127",
    "ink": "#e8eaed",
    "soft": "#a9b1bc",
    "rule": "#363c45",
    "accent": "#8bb8ff",
    "tint": "#1b2a42",
    "shade": "rgb(255 255 255 / 0.16)",
    "good": "#7fd19c",
    "warn": "#f2b765",
    "bad": "#ff9a96",
    "warn-tint": "#33270f",
    "baseline1": "#f0a35e",
    "baseline2": "#aab3bf",
    "student": "#8bb8ff",
    "shuffled": "#c6a4f2",
    "centre": "#f191c9",
    "ceiling": "#74d29a",
    "distilled": "#e0c55a",
    "mixed": "#67d1e6",
    "teacher": "#e6c46a",
    "mapper": "#b3d27a",
    "mapper_all": "#6fd3c0",
    "pca": "#b7d36b",
    "shuffled_human": "#ff9d8f",
    "masked": "#cbb0a5",
    "dfr": "#7fd6cb",
}
"""The same names on a dark page."""

SERIES = {
    "baseline1_paper": "baseline1",
    "baseline1": "baseline1",
    "baseline2": "baseline2",
    "student": "student",
    "shuffled": "shuffled",
    "centre": "centre",
    "ceiling": "ceiling",
    "distilled": "distilled",
    "mixed": "mixed",
    "teacher": "teacher",
    "mapper": "mapper",
    "mapper_all": "mapper_all",
    "pca": "pca",
    "shuffled_human": "shuffled_human",
    "any": "shuffled",
    "masked": "masked",
    "dfr": "dfr",
    "baseline1_started": "baseline1",
    "baseline2_started": "baseline2",
    "student_started": "student",
}
"""The name of the color of each series of a figure, by its key."""


def magma(count: int) -> list[str]:
    """Colors of the map at even distances, from dark to bright, in hexadecimal.

    Example:
        >>> magma(2)
        ['#000004', '#fcfdbf']
    """
    last = COLORS - 1
    places = [round(last * number / (count - 1)) for number in range(count)]
    return [f"#{MAGMA[3 * place : 3 * place + 3].hex()}" for place in places]
