"""Image files of names in annotation files, looked for in one folder and nowhere else."""

# os.path and not Path: a million files are listed.
# ruff: noqa: PTH118, PTH122

from __future__ import annotations

import os
import re
import unicodedata
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from preceptor.data.pixel_formats import image_suffixes
from preceptor.errors import InputError
from preceptor.runtime.walk import walk

_UPLOAD = re.compile(r"(?:^|/)data/upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)$")


class ImageFiles:
    """Index of the images below a folder.

    A name is looked for as a path from the folder, then without its first folders one after the
    other; a name that then fits several files is refused. The name is tried as written, without
    the query of a URL, and with `%20` and the like replaced; one of a file that was uploaded to
    Label Studio also as the names of the files are changed there.

    Args:
        folder: Folder of the images.
        without: Folder below it whose files are no images, such as that of the masks; None = there
            is none.

    Raises:
        InputError: It is not a folder.
        OSError: A folder below it cannot be read.
    """

    def __init__(self, folder: Path, without: Path | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: it is not a folder; name the folder of the images")
        suffixes = image_suffixes()
        self._paths: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = {}
        left_out = None if without is None else os.path.realpath(without)
        for base, folders, names in walk(str(self.folder)):
            if left_out is not None:
                folders[:] = [
                    one for one in folders if os.path.realpath(os.path.join(base, one)) != left_out
                ]
            inside = os.path.relpath(base, self.folder)
            for name in sorted(names):
                if name.startswith(".") or os.path.splitext(name)[1].lower() not in suffixes:
                    continue
                path = name if inside == "." else f"{inside}/{name}".replace(os.sep, "/")
                self._paths[path] = path
                self._by_name.setdefault(_plain(name), []).append(path)

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
            return bool(self._ending(name.removesuffix(".*"), stems=True))
        return name in self._paths or any(self._ending(form) for form in name_forms(name))

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
        forms = name_forms(name)
        for form in forms:
            if ".." in form.split("/"):
                raise LookupError(f"{name!r} leads out of the folder of images; remove the ../")
            if (exact := self._paths.get(form)) is not None:
                return exact
            found = self._ending(form)
            if len(found) == 1:
                return found[0]
            if found:
                wrong = _ambiguous(name, found)
        for upload in () if wrong else _uploads(forms):
            found = self._by_uploaded_name.get(upload, [])
            if len(found) == 1:
                return found[0]
            if found:
                wrong = _ambiguous(name, found)
        raise LookupError(wrong or f"there is no image {name!r} in {self.folder}; correct --images")

    def find_stem(self, stem: str) -> str:
        """Path of an image from the folder, by its path without the suffix.

        Raises:
            LookupError: As in `find`.
        """
        found = self._ending(stem, stems=True)
        if len(found) == 1:
            return found[0]
        if found:
            raise LookupError(
                f"{stem!r} fits {len(found)} images ({found[0]}, {found[1]}); rename one of them"
            )
        raise LookupError(f"there is no image {stem!r} in {self.folder}; correct --images")

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

    def _ending(self, form: str, *, stems: bool = False) -> list[str]:
        """Images that share the longest end of a path with it, at least the file name."""
        parts = [_plain(one) for one in form.split("/") if one not in ("", ".")]
        if not parts:
            return []
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
        return best


def name_forms(name: str) -> list[str]:
    """Forms of a name in an annotation file, most literal first, with / between folders.

    Example:
        >>> name_forms("/data/upload/1/a%20b.png?x=1")[-1]
        '/data/upload/1/a b.png'
        >>> name_forms("/data/local-files/?d=set%2Fa.png")[-1]
        'set/a.png'
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
    return list(dict.fromkeys(form.removeprefix("./") for form in forms if form))


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
