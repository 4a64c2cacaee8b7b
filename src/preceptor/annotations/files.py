"""Files of a source, values in them, and the image files that they name."""

# os.path and not Path: a million files are listed.
# ruff: noqa: PTH118, PTH122

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from preceptor.annotations.shapes import Floats
from preceptor.data.images import image_suffixes
from preceptor.errors import InputError, reason
from preceptor.utils.files import walk

RECORD = "import.json"
"""File in the folder of an import, whose images are no images of another one."""
Sources = Path | str | Sequence[Path | str]
_SPLIT = re.compile(
    r"(?<![a-z])(?:(train|training)|(val|valid|validation|dev)|(test|testing))(?![a-z])"
)
_UPLOAD = re.compile(r"(?:^|/)data/upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)$")
_UP = re.compile(r"^(?:\.{1,2}/)+")
_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Sorted files below a folder with a suffix; hidden files and folders are left out."""
    return [
        Path(base, name)
        for base, _, names in walk(str(folder))
        for name in sorted(names)
        if name.lower().endswith(suffix) and not name.startswith(".")
    ]


def paths_of(source: Sources) -> list[Path]:
    """Paths of a source, one or several."""
    return [Path(source)] if isinstance(source, str | Path) else [Path(one) for one in source]


def files_of(source: Sources, suffix: str, first: str = "") -> list[Path]:
    """Files given by name, or all with a suffix in a folder: of these, `first…` alone if any."""
    files: list[Path] = []
    for path in map(existing, paths_of(source)):
        inside = files_below(path, suffix) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: there is no {suffix} file in it; correct the path")
        preferred = [file for file in inside if first and file.name.startswith(first)]
        files += preferred if path.is_dir() and preferred else inside
    return files


def existing(path: Path | str) -> Path:
    """Path of a file or folder."""
    if not Path(path).exists():
        raise InputError(f"{path}: there is no such file; correct the path")
    return Path(path)


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, with or without the byte order mark of Windows."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except ValueError:
        raise InputError(f"{path}: it is not UTF-8 text; save it so") from None


def read_json(path: Path) -> Any:
    """Value of a JSON file."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        what = f"{path}: not sound JSON ({reason(error, 100)}); export it again from the tool"
        raise InputError(what) from None


def read_xml(path: Path, root: str) -> Element:
    """Outermost element of an XML file, read without entities and external references."""
    try:
        element = ElementTree.parse(path).getroot()
    except DefusedXmlException as error:
        what = f"it declares XML entities ({type(error).__name__}); remove the DOCTYPE"
        raise InputError(f"{path}: {what}") from None
    except (ParseError, ValueError, LookupError) as error:
        what = f"{path}: not sound XML ({reason(error, 100)}); export it again from the tool"
        raise InputError(what) from None
    if element is None or element.tag != root:
        tag = "" if element is None else element.tag
        what = f"its outermost element is <{tag}>, not <{root}>; it is of another format"
        raise InputError(f"{path}: {what}")
    return element


def split_of(word: str) -> str:
    """Split that a word names, with a number behind it or without, or "".

    Example:
        >>> split_of("Validation"), split_of("train2017"), split_of("images")
        ('val', 'train', '')
    """
    match = _SPLIT.fullmatch(word.strip().lower().rstrip("0123456789"))
    return "" if match is None else "train" if match[1] else "val" if match[2] else "test"


def split_of_folders(path: PurePath) -> str:
    """Split that a folder of the path of a file names, the nearest one, or "".

    Example:
        >>> split_of_folders(PurePath("train/images/test_strip_01.json"))
        'train'
    """
    return next((split for one in reversed(path.parts[:-1]) if (split := split_of(one))), "")


def split_in(path: PurePath) -> str:
    """Split that occurs as a word in the name of the file of a whole split, or is its folder's."""
    words = _SPLIT.findall(path.stem.lower())
    splits = {split_of(word) for match in words for word in match if word}
    return splits.pop() if len(splits) == 1 else split_of(path.parent.name)


class ImageFiles:
    """Index of the images below a folder but for another folder below it, and for masks in it.

    A name is looked for as a path from the folder, then without its first folders one after the
    other; a name that then fits several files is refused. A file in another folder does not fit if
    a folder of the name exists: `p1/a.png` is not `p2/a.png` if there is a folder `p1`.
    """

    def __init__(
        self, folder: Path, without: Path | None = None, masks: Collection[str] = ()
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: there is no such folder; name a folder of images or masks")
        left_out = None if without is None else Path(os.path.realpath(without))
        if left_out and Path(os.path.realpath(self.folder)).is_relative_to(left_out):
            raise InputError(
                f"{folder}: the images lie in the folder of the masks, {without}, so that every "
                "image would be its own mask; name a folder of masks that has no images, or state "
                "the folder of images where the masks are read"
            )
        suffixes = image_suffixes()
        self._paths: set[str] = set()
        self._by_name: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        for base, folders, names in walk(str(self.folder)):
            inside = os.path.relpath(base, self.folder).replace(os.sep, "/")
            if RECORD in names and inside != ".":
                folders[:] = []
                continue
            if left_out:
                real = [Path(os.path.realpath(os.path.join(base, one))) for one in folders]
                folders[:] = [one for one, at in zip(folders, real, strict=True) if at != left_out]
            for name in names:
                path = name if inside == "." else f"{inside}/{name}"
                stem, suffix = os.path.splitext(name)
                if name.startswith(".") or suffix.lower() not in suffixes or path in masks:
                    continue
                self._paths.add(path)
                self._folders.update(_plain(path).split("/")[:-1])
                for key in (name, f"{stem}.*"):
                    self._by_name.setdefault(_plain(key), []).append(path)
        self.names = sorted(self._paths)  # paths of all images from the folder

    @cached_property
    def _uploaded(self) -> dict[str, list[str]]:
        """Paths by the name that Label Studio gives to an uploaded image."""
        paths: dict[str, list[str]] = {}
        for path in self.names:
            paths.setdefault(uploaded_name(path.split("/")[-1]), []).append(path)
        return paths

    def find(self, name: str, other_name: str = "") -> str:
        """Path of the image of a name, of any suffix for `a.*`, else of another name.

        Raises:
            LookupError: There is none, or several.
        """
        if name in self._paths:
            return name
        several: list[str] = []
        elsewhere: list[str] = []
        for form in name_forms(name):
            if ".." in form.split("/"):
                raise LookupError(f"{name!r} leads out of the folder of images; remove the ../")
            if form in self._paths:
                return form
            fitting, others = self._ending(form)
            if not fitting and (upload := _UPLOAD.search(form)):
                fitting = self._uploaded.get(upload[1], [])
            if len(fitting) == 1:
                return fitting[0]
            several = fitting or several
            elsewhere += others
        if several:
            raise LookupError(
                f"{name!r} fits {len(several)} files ({several[0]}, {several[1]}); write the "
                "folder with the name, or import one folder at a time"
            )
        if other_name:
            return self.find(other_name)
        where = f" (but {elsewhere[0]}, in another folder)" if elsewhere else ""
        raise LookupError(f"there is no image {name!r} in {self.folder}{where}; correct --images")

    def _ending(self, form: str) -> tuple[list[str], list[str]]:
        """Images of the file name of a form that its folders may mean; and others."""
        *folders, last = [_plain(part) for part in form.split("/") if part not in ("", ".")] or [""]
        images = self._by_name.get(last, [])
        # The first folders of an absolute path are folders of another machine. Of a relative form,
        # an image has the first folder, or all of its folders are in the form.
        known = [folder for folder in folders if folder in self._folders]
        stated = {*(known[-1:] if (elsewhere := _ABSOLUTE.match(form)) else known)}

        def shared(path: str) -> int:
            """Number of the last folders that the form has too."""
            pairs = zip(reversed(folders), reversed(_plain(path).split("/")[:-1]), strict=False)
            return len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])

        fitting = [
            path
            for path in images
            if stated <= (parts := {*_plain(path).split("/")})
            and (elsewhere or not {*folders[:1]} - parts or shared(path) == path.count("/"))
        ]
        longest = max(map(shared, fitting), default=0)
        return (
            [path for path in fitting if shared(path) == longest],
            [path for path in images if path not in fitting],
        )


def name_forms(name: str) -> list[str]:
    """Forms of a name in an annotation file, most literal first, with / between folders.

    Leading `..` are left out, as an annotation file may lie elsewhere.

    Example:
        >>> name_forms("/data/upload/1/a%20b.png?x=1")[-1]
        '/data/upload/1/a b.png'
        >>> name_forms("/data/local-files/?d=set%2Fa.png")[-1]
        'set/a.png'
        >>> name_forms("..\\\\images\\\\a.png")
        ['images/a.png']
    """
    forms = [name]
    try:
        url = urlsplit(name)
    except ValueError:
        url = None
    if url is not None and (url.query or "%" in name or "://" in name):
        local = parse_qs(url.query).get("d")  # Label Studio's local files
        forms += local[:1] if local else [unquote(name), url.path, unquote(url.path)]
    forms = [form.replace("\\", "/") for form in forms]
    forms += [upload[1] for form in forms if (upload := _UPLOAD.search(form))]
    return list(dict.fromkeys(_UP.sub("", form) for form in forms if form))


def uploaded_name(name: str) -> str:
    """Name that Label Studio gives to an uploaded file, behind its eight digits and a hyphen."""
    return re.sub(r"[^-\w.]", "", _plain(name).strip().replace(" ", "_"))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def shown(value: Any) -> str:
    """Value in a message, cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def number(value: Any, name: str) -> float:
    """Finite number of a foreign file, written as a number or as text."""
    try:
        if isinstance(value, int | float) or (isinstance(value, str) and "_" not in value):
            read = math.nan if isinstance(value, bool) else float(value)
            if math.isfinite(read):
                return read
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} is {shown(value)}, not a finite number")


def whole(value: Any, name: str) -> int:
    """Whole number of a foreign file; 3.0 is one."""
    read = number(value, name)
    if read != int(read) or abs(read) >= 2**62:
        raise ValueError(f"{name} is {shown(value)}, not a whole number")
    return value if isinstance(value, int) else int(read)


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height of an image, or None if neither is stated."""
    if width is None and height is None:
        return None
    try:
        size = whole(width, "width"), whole(height, "height")
        if min(size) > 0:
            return size
    except ValueError:
        pass
    raise ValueError(f"the size is {shown(width)} × {shown(height)}, not two whole numbers above 0")


def points_of(value: Any, least: int) -> Floats:
    """(n, 2) array of a list of pairs, or of a flat list of x, y, x, y."""
    try:
        points = np.array(value, np.float64)
        points = points.reshape(-1, 2) if points.ndim == 1 else points
        good = points.ndim == 2 and points.shape[1] == 2 and bool(np.isfinite(points).all())
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good or len(points) < least:
        raise ValueError(f"points are {shown(value)}, not {least} or more pairs of finite numbers")
    return points


def text_of(value: Any) -> str:
    """Text, "" for null; numbers are written as text."""
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, bool | list | dict) else str(value)
