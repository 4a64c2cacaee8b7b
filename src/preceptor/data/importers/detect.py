"""Format of an annotation file or folder, recognized by its content."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.source_files import files_below
from preceptor.errors import InputError

_HEAD = 1 << 16
# Files of each suffix that are looked into.
_LOOKED_AT = 20
# Formats whose readers take several files, or a folder with them.
_OF_MANY = ("coco", "labelstudio")


@dataclass(frozen=True)
class Found:
    """Format that a source may have.

    Args:
        format: Name of the format.
        why: What it was recognized by.
        sources: What to name as SOURCE.
    """

    format: str
    why: str
    sources: tuple[Path, ...]


def detect_format(source: Path) -> list[Found]:
    """Formats of a source, the most certain first.

    Args:
        source: File or folder.

    Raises:
        InputError: It does not exist, or is of no known format; the message says what was found.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: there is no such file; correct the path")
    found = list(_in_folder(source)) if source.is_dir() else list(_of_file(source, source))
    if not found:
        kinds = sorted({one.suffix.lower() for one in source.rglob("*")} if source.is_dir() else ())
        seen = f"there are {', '.join(filter(None, kinds))[:100] or 'no files'} in it"
        raise InputError(
            f"{source}: of no known format ({seen if source.is_dir() else 'by its content'}); "
            "name the format: preceptor data import --help"
        )
    by_format: dict[str, list[Found]] = {}
    for one in found:
        by_format.setdefault(one.format, []).append(one)
    return [_joined(several, source) for several in by_format.values()]


def _joined(found: list[Found], folder: Path) -> Found:
    """All sources of one format as one; of formats of a single file, the first."""
    first, files = found[0], [path for one in found for path in one.sources]
    if len(set(files)) == 1 or first.format not in ("cvat", "fixations", *_OF_MANY):
        return first
    more = f"{first.why}; {len(files) - 1:,} more such file{'s' if len(files) > 2 else ''}"
    if first.format not in _OF_MANY:
        return Found(first.format, f"{more}, to be imported one at a time", first.sources)
    # A reader takes all JSON files of a folder; that of COCO only instances*.json if there are any.
    others = set(files_below(folder, ".json")[:_LOOKED_AT]) - set(files)
    named = first.format == "coco" and any(one.name.startswith("instances") for one in files)
    return Found(first.format, more, (folder,) if named or not others else tuple(files))


def _in_folder(folder: Path) -> list[Found]:
    found: list[Found] = []
    for suffix in (".yaml", ".yml", ".json", ".xml", ".csv", ".txt"):
        for path in files_below(folder, suffix)[:_LOOKED_AT]:
            found += _of_file(path, folder)
    if any("SegmentationClass" in one.parts for one in files_below(folder, ".png")):
        found.append(Found("voc", "it has a folder SegmentationClass", (folder,)))
    if not found:
        names = ImageFiles(folder).names
        inside = [name for name in names if "/" in name]
        if inside:
            classes = sorted({name.split("/")[-2] for name in inside})
            what = f"images in the folders {', '.join(classes[:4])}"
            found.append(Found("folders", what, (folder,)))
        elif names:
            found.append(Found("masks", f"{len(names):,} images and nothing else", (folder,)))
    return found


def _of_file(path: Path, source: Path) -> list[Found]:
    """Format of one file; `source` is the folder that a reader of many files takes."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD).decode("utf-8-sig", errors="replace").lstrip()
    check = {
        ".json": _of_json,
        ".xml": _of_xml,
        ".yaml": _of_yaml,
        ".yml": _of_yaml,
        ".csv": _of_table,
        ".tsv": _of_table,
        ".txt": _of_text,
    }.get(path.suffix.lower())
    found = check(head) if check else None
    if found is None:
        return []
    name, why = found
    one_a_file = name in ("labelme", "voc") or path.suffix.lower() == ".txt"
    return [Found(name, f"{path.name}: {why}", (source if one_a_file else path,))]


def _of_json(head: str) -> tuple[str, str] | None:
    if head.startswith("["):
        if re.search(r'"(annotations|completions|predictions)"\s*:', head) and '"data"' in head:
            return "labelstudio", "a list of tasks with data and annotations"
        return None
    if '"shapes"' in head and ('"imagePath"' in head or '"imageData"' in head):
        return "labelme", "it has shapes and imagePath"
    if re.search(r'"(images|annotations)"\s*:\s*\[', head) or (
        re.search(r'"categories"\s*:\s*\[', head) and not _is_whole(head)
    ):
        return "coco", "it has lists of images, annotations or categories"
    return None


def _is_whole(head: str) -> bool:
    """Whether a JSON file ends within its head, as the notes beside Label Studio's YOLO files."""
    try:
        json.loads(head)
    except ValueError:
        return False
    return True


def _of_xml(head: str) -> tuple[str, str] | None:
    match = re.search(r"<(annotations?)[\s>]", head)
    if match is None:
        return None
    return ("cvat" if match[1] == "annotations" else "voc"), f"its first element is <{match[1]}>"


def _of_yaml(head: str) -> tuple[str, str] | None:
    named = re.search(r"^names\s*:", head, re.M) and re.search(r"^(train|val)\s*:", head, re.M)
    return ("yolo", "it has names, and train or val") if named else None


def _of_table(head: str) -> tuple[str, str] | None:
    columns = set(re.split(r"[,;\t]", head.partition("\n")[0].strip()))
    return (
        ("fixations", "it has the columns image, x, y") if {"image", "x", "y"} <= columns else None
    )


def _of_text(head: str) -> tuple[str, str] | None:
    words = head.partition("\n")[0].split()
    try:
        shares = [float(word) for word in words[1:]]
    except ValueError:
        return None
    if not words or not words[0].isdecimal() or len(shares) < 4 or not 0 <= max(shares) <= 1.01:
        return None
    return "yolo", "lines of a class and 4 or more shares"
