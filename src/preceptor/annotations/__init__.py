"""Annotations of other tools, and of published collections: readers, writers, agreement."""

from __future__ import annotations

from preceptor.annotations.json_formats import read_coco, read_labelme, read_labelstudio
from preceptor.annotations.masks import read_folders, read_masks
from preceptor.annotations.shapes import ImportedAnnotations
from preceptor.annotations.text_formats import (
    read_cvat,
    read_points,
    read_und,
    read_voc,
    read_yolo,
)
from preceptor.annotations.write import ImportOptions, write_import

__all__ = [
    "ImportOptions",
    "ImportedAnnotations",
    "read_coco",
    "read_cvat",
    "read_folders",
    "read_labelme",
    "read_labelstudio",
    "read_masks",
    "read_points",
    "read_und",
    "read_voc",
    "read_yolo",
    "write_import",
]
