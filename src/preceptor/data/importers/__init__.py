"""Readers of annotations of other tools, and of published collections."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preceptor.data.importers.coco import read_coco
    from preceptor.data.importers.cvat import read_cvat
    from preceptor.data.importers.detect import detect_format
    from preceptor.data.importers.fixations import Gaze, read_fixations
    from preceptor.data.importers.folders import read_folders
    from preceptor.data.importers.labelme import read_labelme
    from preceptor.data.importers.labelstudio import read_labelstudio
    from preceptor.data.importers.masks import read_masks
    from preceptor.data.importers.options import ImportOptions
    from preceptor.data.importers.und import read_und
    from preceptor.data.importers.voc import read_voc
    from preceptor.data.importers.write import write_import
    from preceptor.data.importers.yolo import read_yolo

# Imported at first use: the command line asks for one format only.
_PLACES = {
    "Gaze": "preceptor.data.importers.fixations",
    "ImportOptions": "preceptor.data.importers.options",
    "detect_format": "preceptor.data.importers.detect",
    "read_coco": "preceptor.data.importers.coco",
    "read_cvat": "preceptor.data.importers.cvat",
    "read_fixations": "preceptor.data.importers.fixations",
    "read_folders": "preceptor.data.importers.folders",
    "read_labelme": "preceptor.data.importers.labelme",
    "read_labelstudio": "preceptor.data.importers.labelstudio",
    "read_masks": "preceptor.data.importers.masks",
    "read_und": "preceptor.data.importers.und",
    "read_voc": "preceptor.data.importers.voc",
    "read_yolo": "preceptor.data.importers.yolo",
    "write_import": "preceptor.data.importers.write",
}

__all__ = [
    "Gaze",
    "ImportOptions",
    "detect_format",
    "read_coco",
    "read_cvat",
    "read_fixations",
    "read_folders",
    "read_labelme",
    "read_labelstudio",
    "read_masks",
    "read_und",
    "read_voc",
    "read_yolo",
    "write_import",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _PLACES:
        raise AttributeError(f"module 'preceptor.data.importers' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
