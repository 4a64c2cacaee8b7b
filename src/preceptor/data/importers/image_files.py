"""Image files of names in annotation files, looked for in one folder and nowhere else."""

# os.path and not Path: a million files are listed.
# ruff: noqa: PTH118, PTH122

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from preceptor.data.images import image_suffixes
from preceptor.errors import InputError
from preceptor.runtime.walk import walk

_UPLOAD = re.compile(r"(?:^|/)data/upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)$")
_UP = re.compile(r"^(?:\.{1,2}/)+")
_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")


class ImageFiles:
    """Index of the images below a folder.

    A name is looked for as a path from the folder, then without its first folders one after the
    other; a name that then fits several files is refused. A file in another folder does not fit if
    the folder of the name exists: `p1/a.png` is not `p2/a.png` if there is a folder `p1`. Leading
    `..` are left out, as an annotation file may lie elsewhere. The name is tried as written,
    without the query of a URL, and with `%20` and the like replaced; one of a file that was
    uploaded to Label Studio also as the names of the files are changed there.

    Args:
        folder: Folder of the images.
        without: Folder below it whose files are no images, such as that of the masks; None = there
            is none.
        masks: Paths of files in it that are no images.

    Raises:
        InputError: It is not a folder, or lies in `without`.
        OSError: A folder below it cannot be read.
    """

    def __init__(
        self, folder: Path, without: Path | None = None, masks: Collection[str] = ()
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: it is not a folder; name the folder of the images")
        suffixes = image_suffixes()
        self._paths: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        left_out = None if without is None else os.path.realpath(without)
        if left_out is not None and _is_in(os.path.realpath(self.folder), left_out):
            raise InputError(
                f"{folder}: the images lie in the folder of the masks, {without}, so that every "
                "image would be its own mask; name a folder of masks that has no images, or state "
                "the folder of images where the masks are read"
            )
        for base, folders, names in walk(str(self.folder)):
            if left_out is not None:
                folders[:] = [
                    one for one in folders if os.path.realpath(os.path.join(base, one)) != left_out
                ]
            inside = os.path.relpath(base, self.folder)
            has_images = False
            for name in sorted(names):
                if name.startswith(".") or os.path.splitext(name)[1].lower() not in suffixes:
                    continue
                path = name if inside == "." else f"{inside}/{name}".replace(os.sep, "/")
                if path in masks:
                    continue
                self._paths[path] = path
                self._by_name.setdefault(_plain(name), []).append(path)
                has_images = True
            if has_images and inside != ".":
                self._folders.update(_above(_plain(inside.replace(os.sep, "/"))))

    @property
    def names(self) -> list[str]:
        """Paths of all images from the folder, sorted."""
        return sorted(self._paths)

    def has(self, name: str) -> bool:
        """Whether there are images of a name.

        Args:
            name: Same as in `find`.
        """
        if name.endswith(".*"):
            return bool(self._ending(name.removesuffix(".*"), stems=True)[0])
        return name in self._paths or any(self._ending(form)[0] for form in name_forms(name))

    def find(self, name: str) -> str:
        """Path of an image from the folder.

        Args:
            name: Name in an annotation file; `a.*` is an image with any suffix.

        Raises:
            LookupError: There is none, or several; the message says so, and how to correct it.
        """
        if name in self._paths:
            return name
        if name.endswith(".*"):
            return self.find_stem(name.removesuffix(".*"))
        wrong = ""
        elsewhere: list[str] = []
        forms = name_forms(name)
        for form in forms:
            if ".." in form.split("/"):
                raise LookupError(f"{name!r} leads out of the folder of images; remove the ../")
            if (exact := self._paths.get(form)) is not None:
                return exact
            found, others = self._ending(form)
            if len(found) == 1:
                return found[0]
            if found:
                wrong = _ambiguous(name, found)
            elsewhere += others
        for upload in () if wrong else _uploads(forms):
            found = self._by_uploaded_name.get(upload, [])
            if len(found) == 1:
                return found[0]
            if found:
                wrong = _ambiguous(name, found)
        raise LookupError(wrong or self._missing(name, elsewhere))

    def find_stem(self, stem: str) -> str:
        """Path of an image from the folder, by its path without the suffix.

        Raises:
            LookupError: As in `find`.
        """
        found, elsewhere = self._ending(stem, stems=True)
        if len(found) == 1:
            return found[0]
        if found:
            raise LookupError(
                f"{stem!r} fits {len(found)} images ({found[0]}, {found[1]}); rename one of them"
            )
        raise LookupError(self._missing(stem, elsewhere))

    def _missing(self, name: str, elsewhere: list[str]) -> str:
        where = f" (but {elsewhere[0]}, in another folder)" if elsewhere else ""
        return f"there is no image {name!r} in {self.folder}{where}; correct --images"

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        for path in self._paths:
            by_stem.setdefault(_plain(PurePosixPath(path).stem), []).append(path)
        return by_stem

    @cached_property
    def _by_uploaded_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self._paths:
            found.setdefault(uploaded_name(PurePosixPath(path).name), []).append(path)
        return found

    @cached_property
    def _folder_names(self) -> set[str]:
        return {part for folder in self._folders for part in folder.split("/")}

    def _ending(self, form: str, *, stems: bool = False) -> tuple[list[str], list[str]]:
        """Images that share the longest end of a path with it, at least the file name.

        Returns:
            Those that fit, and those that lie in another folder than the one that it states.
        """
        parts = [_plain(one) for one in form.split("/") if one not in ("", ".")]
        if not parts:
            return [], []
        best: list[str] = []
        longest = 0
        for path in (self._by_stem if stems else self._by_name).get(parts[-1], ()):
            own = _plain(path).split("/")
            if stems:
                own[-1] = PurePosixPath(own[-1]).stem
            same = 0
            while same < min(len(own), len(parts)) and own[-1 - same] == parts[-1 - same]:
                same += 1
            if same > longest:
                best, longest = [path], same
            elif same == longest:
                best.append(path)
        stated = parts[:-longest] if longest else []
        if _ABSOLUTE.match(form):  # its first folders are those of another machine
            stated = stated[-1:]
        others = [one for one in best if self._is_elsewhere(one, stated, alone=longest == 1)]
        return [one for one in best if one not in others], others

    def _is_elsewhere(self, path: str, stated: list[str], *, alone: bool) -> bool:
        """Whether an image lies in another folder than a name that was shortened states.

        Args:
            path: Path of the image.
            stated: Folders of the name that are not those of the image.
            alone: Whether the name of the file alone is that of the image.
        """
        own = _plain(path).split("/")[:-1]
        missing = [one for one in stated if one not in own]
        if alone and missing and missing[-1] == stated[-1] and missing[-1] in self._folder_names:
            return True
        above = ["", *(f"{folder}/" for folder in _above("/".join(own)))]
        return any(f"{folder}{one}" in self._folders for one in missing for folder in above)


def _above(folder: str) -> list[str]:
    """A folder and those above it, from the first one.

    Example:
        >>> _above("a/b")
        ['a', 'a/b']
    """
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _is_in(folder: str, other: str) -> bool:
    """Whether a folder is another one or lies in it."""
    return folder == other or folder.startswith(os.path.join(other, ""))


def name_forms(name: str) -> list[str]:
    """Forms of a name in an annotation file, most literal first, with / between folders.

    Leading `..` are left out.

    Example:
        >>> name_forms("/data/upload/1/a%20b.png?x=1")[-1]
        '/data/upload/1/a b.png'
        >>> name_forms("/data/local-files/?d=set%2Fa.png")[-1]
        'set/a.png'
        >>> name_forms("..\\\\images\\\\a.png")
        ['images/a.png']
    """
    forms = [name.replace("\\", "/")]
    query = urlsplit_or_none(name)
    if query is not None and (query[1] or "%" in name or "://" in name):
        path, given = query
        local = parse_qs(given).get("d")  # Label Studio's local files
        if local:
            forms += [local[0].replace("\\", "/")]
        else:
            forms += [unquote(name).replace("\\", "/"), path, unquote(path)]
    forms += _uploads(forms)
    return list(dict.fromkeys(_UP.sub("", form) for form in forms if form))


def uploaded_name(name: str) -> str:
    """Name that Label Studio gives to an uploaded file, behind its eight digits and a hyphen.

    Blanks become underscores, and what is neither a letter, a digit, a hyphen, an underscore nor a
    dot is left out.

    Example:
        >>> uploaded_name("scan 7 (left).jpg")
        'scan_7_left.jpg'
    """
    return re.sub(r"[^-\w.]", "", _plain(name).strip().replace(" ", "_"))


def _uploads(forms: list[str]) -> list[str]:
    """Names of files that were uploaded to Label Studio, without the digits before them."""
    return [found[1] for form in forms if (found := _UPLOAD.search(form))]


def _ambiguous(name: str, found: list[str]) -> str:
    more = ", …" if len(found) > 2 else ""
    return (
        f"{name!r} fits {len(found)} files ({found[0]}, {found[1]}{more}); write the folder with "
        "the name, or import one folder at a time"
    )


def urlsplit_or_none(name: str) -> tuple[str, str] | None:
    """Path and query of a URL, or None if it is none."""
    try:
        parts = urlsplit(name)
    except ValueError:
        return None
    return parts.path, parts.query


def safe_name(name: str) -> str:
    """Name of a file or folder that lies in its folder on every system.

    Example:
        >>> safe_name("../ann@lab.org"), safe_name("CON?")
        ('ann@lab.org', 'CON_')
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = re.sub(r"[^\w.@+ -]", "_", unicodedata.normalize("NFC", last)).strip(" .")
    return cleaned[:120] or "_"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
