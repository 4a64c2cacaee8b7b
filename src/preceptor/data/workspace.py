"""Workspace: a manifest with its content hashes and image caches, shared by runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.run import RunConfig
from preceptor.config.settings import Amount, ImageFormat
from preceptor.data.cache import ImageSource, contents_of, open_images
from preceptor.data.loader import MapTargets, Rows
from preceptor.data.manifest import Manifest
from preceptor.data.splits import draw_annotated
from preceptor.data.store import FileContents, written
from preceptor.errors import InputError
from preceptor.metrics.split_names import kind_of
from preceptor.utils.files import default_cache_dir, walk
from preceptor.utils.results import digest, file_digest
from preceptor.utils.text import progress

# Rows whose text is made at a time: that of a million rows takes 240 MB.
_PART = 16_384
# The group is part of what scores.parquet says, and intervals resample groups.
_COLUMNS = ("label", "split", "source", "group", "sample_weight")


class RowHashes:
    """Content hashes of manifest rows, computed once for all runs of a study."""

    def __init__(self, manifest: Manifest, contents: FileContents) -> None:
        self._table, self._contents = manifest.table, contents
        self.map_weight = manifest.table["map_weight"].to_numpy(np.float64)
        self.has_map = manifest.map_mask
        self._annotated = manifest.annotated_mask
        self._known: dict[str, str] = {}

    @property
    def images(self) -> NDArray[np.uint8]:
        """(n, 16) content hash of the image of each row."""
        return self._contents.images

    def of(
        self,
        rows: NDArray[np.int64],
        mapped: NDArray[np.bool_] | None = None,
        *,
        weighted: bool = False,
    ) -> str:
        """Hash of (n,) rows, with human maps where `mapped`, and with map weights if `weighted`."""
        key = digest([*(None if one is None else _bytes(one) for one in (rows, mapped)), weighted])
        if key not in self._known:  # thousands of runs of a study share few selections of rows
            state = hashlib.blake2b(digest_size=10)
            for start in range(0, len(rows), _PART):
                part = slice(start, start + _PART)
                with_map = np.zeros(len(rows[part]), bool) if mapped is None else mapped[part]
                state.update(b"".join(self._lines(rows[part], with_map, weighted=weighted)))
            self._known[key] = state.hexdigest()
        return self._known[key]

    @cached_property
    def whole(self) -> str:
        """Hash of the whole table, which tells whether another process has read the same one."""
        state = hashlib.blake2b(self._contents.digest.encode(), digest_size=16)
        for column in ("name", *_COLUMNS):
            for start in range(0, len(self._table), _PART):
                part = self._table[column].iloc[start : start + _PART].tolist()
                state.update(json.dumps(part, default=float).encode())
        for values in (self.map_weight, self.has_map, self._annotated):
            state.update(values.tobytes())
        return state.hexdigest()

    def _lines(
        self, rows: NDArray[np.int64], mapped: NDArray[np.bool_], *, weighted: bool
    ) -> Iterator[bytes]:
        """What is hashed of each row: values as JSON, so that no two rows are written the same."""
        table = self._table
        images = zip(
            table["name"].iloc[rows].tolist(),
            written(self._contents.images[rows]),
            *(table[column].iloc[rows].tolist() for column in _COLUMNS),
            strict=True,
        )
        maps = written(self._contents.maps[rows])
        for row, image, content, has_map in zip(rows, images, maps, mapped.tolist(), strict=True):
            yield json.dumps(image, ensure_ascii=False, default=float).encode()
            if has_map:
                yield content.encode()
            if weighted:
                yield self.map_weight[row].tobytes()
            yield b"\n"


def _folder_digest(path: Path) -> str:
    """Hash of the names and contents of all files in a folder, as `maps.sources` reads them."""
    every = (Path(base, name) for base, _, names in walk(str(path)) for name in names)
    files = sorted(file for file in every if not file.name.startswith("."))
    return digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def _bytes(values: NDArray[Any]) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()


class Workspace:
    """Manifest with the data that its runs share, opened at first use."""

    def __init__(self, manifest: Manifest, cache_dir: Path | None = None) -> None:
        self.manifest = manifest
        self.cache_dir = cache_dir or default_cache_dir()
        self._images: dict[tuple[int, str, int, str], ImageSource] = {}
        # Read once for all runs of a study.
        self.file_digest, self.folder_digest = cache(file_digest), cache(_folder_digest)
        self._annotated: dict[tuple[Amount | None, int], NDArray[np.bool_]] = {}
        self._split_rows: dict[str, NDArray[np.int64]] = {}
        self.kept: dict[object, Any] = {}  # what its runs share beside images, by key
        self.train_mask = manifest.train_mask
        self.labels = _labels_of(manifest.table["label"], manifest.classes)

    @classmethod
    def open(
        cls,
        path: Path,
        cache_dir: Path | None = None,
        *,
        verify: bool = False,
        formats: Collection[ImageFormat] = (),
    ) -> Workspace:
        """Read a manifest."""
        with progress() as bar:
            task = bar.add_task("reading images", total=None, note="", visible=False)
            manifest = Manifest.read(
                path,
                verify=verify,
                cache_dir=cache_dir or default_cache_dir(),
                formats=formats,
                progress=lambda done, total: bar.update(
                    task, completed=done, total=total, visible=True
                ),
            )
        return cls(manifest, cache_dir)

    @cached_property
    def contents(self) -> FileContents:
        """Content hashes of the files."""
        return contents_of(self.manifest, self.cache_dir)

    @cached_property
    def hashes(self) -> RowHashes:
        """Content hashes of the rows."""
        return RowHashes(self.manifest, self.contents)

    def images(self, form: ImageFormat, cache: Literal["memmap", "none"] = "memmap") -> ImageSource:
        """Images in a model's format."""
        key = (form.side, form.fit, form.channels, cache)
        if key not in self._images:
            cached = cache == "memmap"
            contents = self.contents if cached else None
            self._images[key] = open_images(
                self.manifest, form, self.cache_dir, cached=cached, contents=contents
            )
        return self._images[key]

    def annotated(self, config: RunConfig) -> NDArray[np.bool_]:
        """Training rows used as annotated (A)."""
        return self.drawn(config.annotated, config.annotated_seed)

    def drawn(self, amount: Amount | None, seed: int) -> NDArray[np.bool_]:
        """Training rows used as annotated, see `draw_annotated`."""
        key = (amount, seed)
        if key not in self._annotated:
            self._annotated[key] = draw_annotated(self.manifest, amount, seed)
            self._annotated[key].flags.writeable = False
        return self._annotated[key]

    def training_rows(self, config: RunConfig) -> NDArray[np.int64]:
        """Manifest rows on which a run is trained."""
        mask = self.annotated(config) if config.rows == "annotated" else self.train_mask
        return np.flatnonzero(mask)

    def human_maps_from(self, config: RunConfig) -> NDArray[np.bool_]:
        """Rows whose human maps a run may use: A, or every training row with a human map."""
        if config.annotated is None and config.rows == "all":
            return self.train_mask
        return self.annotated(config)

    def split_rows(self, kind: str) -> NDArray[np.int64]:
        """Rows of all validation (`val`) or test (`test`) sets."""
        if kind not in self._split_rows:  # a plan asks for each of its steps
            rows = np.flatnonzero(kind_of(self.manifest.table["split"]) == kind)
            self._split_rows[kind] = rows
        return self._split_rows[kind].copy()

    def validation_hash(self) -> str:
        """Hash of all validation rows and of their human maps."""
        rows = self.split_rows("val")
        return self.hashes.of(rows, self.hashes.has_map[rows])

    def rows(
        self,
        which: NDArray[np.int64],
        form: ImageFormat,
        classes: Sequence[str] | None = None,
        *,
        cache: Literal["memmap", "none"] = "memmap",
        targets: MapTargets | None = None,
        grid: tuple[int, int] = (1, 1),
    ) -> Rows:
        """Data of manifest rows in a model's format."""
        names = self.manifest.table["label"].iloc[which]
        weights = self.manifest.table["sample_weight"].to_numpy(np.float32)[which]
        return Rows(
            images=self.images(form, cache),
            rows=which,
            labels=self.labels[which] if classes is None else _labels_of(names, classes),
            size=form.size,
            fit=form.fit,
            sample_weight=None if (weights == 1).all() else weights,
            targets=targets,
            grid=grid,
        )


def _labels_of(names: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
    """(n,) number of each label among the classes."""
    codes, distinct = pd.factorize(names)  # a text for each row would take 60 bytes
    numbers: NDArray[np.int64] = pd.Index(classes).get_indexer(distinct).astype(np.int64)
    if (numbers < 0).any():
        unknown = sorted(map(str, distinct[numbers < 0]))
        raise InputError(
            f"labels {unknown} are not among the classes of the model, {list(classes)}"
        )
    return numbers[codes]
