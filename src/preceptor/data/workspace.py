"""Workspace: a manifest with its content hashes and image caches, shared by runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.image_format import ImageFormat
from preceptor.config.run import RunConfig
from preceptor.config.settings import Amount
from preceptor.data.annotated import draw_annotated
from preceptor.data.cache import ImageSource, open_images
from preceptor.data.decode_pass import INDEX, DecodePass
from preceptor.data.manifest import Manifest
from preceptor.data.row_hashes import FileHashes, RowHashes
from preceptor.data.rows import MapTargets, Rows
from preceptor.errors import InputError
from preceptor.evaluation.split_names import kind_of
from preceptor.runtime.cache_dir import default_cache_dir


class Workspace:
    """Manifest with the data that its runs share, opened at first use.

    Args:
        manifest: Validated manifest.
        cache_dir: Folder of image caches and file hashes; None = the default.
    """

    def __init__(self, manifest: Manifest, cache_dir: Path | None = None) -> None:
        self.manifest = manifest
        self.cache_dir = cache_dir or default_cache_dir()
        self._images: dict[tuple[int, str, int, str], ImageSource] = {}
        self.files = FileHashes()
        self._annotated: dict[tuple[Amount | None, int], NDArray[np.bool_]] = {}
        self.train_mask = manifest.train_mask
        self.class_index = {name: index for index, name in enumerate(manifest.classes)}
        self.labels = self._labels(manifest.table["label"], self.class_index)

    @classmethod
    def open(
        cls,
        path: Path,
        cache_dir: Path | None = None,
        *,
        verify: bool = False,
        formats: Collection[ImageFormat] = (),
    ) -> Workspace:
        """Read a manifest.

        Args:
            path: Path of the manifest.
            cache_dir: Folder of image caches and file hashes; None = the default.
            verify: Whether to decode all images and maps that are new or have changed; otherwise
                they must only exist.
            formats: Image formats whose caches are filled in the same pass, with `verify`.

        Raises:
            ProblemsError: The manifest is invalid; lists all problems with row, value and remedy.
        """
        formats = formats if verify else ()
        with DecodePass(cache_dir or default_cache_dir(), formats) as decoding:
            manifest = Manifest.read(path, verify=verify, decoding=decoding)
        return cls(manifest, cache_dir)

    @property
    def index(self) -> Path:
        """Folder of the index of images, see `FileIndex`."""
        return self.cache_dir / INDEX

    @cached_property
    def hashes(self) -> RowHashes:
        """Content hashes of the rows."""
        return RowHashes(self.manifest, self.index)

    def images(self, form: ImageFormat, cache: Literal["memmap", "none"] = "memmap") -> ImageSource:
        """Images in a model's format.

        Args:
            form: Image format, with side, fit and channels of the canvases.
            cache: Image cache: memmap or none.
        """
        key = (form.side, form.fit, form.channels, cache)
        if key not in self._images:
            self._images[key] = open_images(
                self.manifest,
                side=form.side,
                fit=form.fit,
                channels=form.channels,
                cache_dir=self.cache_dir if cache == "memmap" else None,
                index=self.index,
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
        return np.flatnonzero(kind_of(self.manifest.table["split"]) == kind)

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
        soft: NDArray[np.float32] | None = None,
    ) -> Rows:
        """Data of manifest rows in a model's format.

        Args:
            which: Manifest rows.
            form: Image format.
            classes: Class names in the order of the labels; None = those of the manifest. A trained
                model has its own, of which the manifest may contain only some.
            cache: Image cache: memmap or none.
            targets, grid, soft: Arguments of `Rows`.

        Raises:
            InputError: A label is not among the classes.
        """
        weights = self.manifest.table["sample_weight"].to_numpy(np.float32)[which]
        return Rows(
            images=self.images(form, cache),
            rows=which,
            labels=self.labels[which] if classes is None else self._labels_of(which, classes),
            size=form.size,
            fit=form.fit,
            sample_weight=None if (weights == 1).all() else weights,
            targets=targets,
            grid=grid,
            soft=soft,
        )

    def _labels_of(self, which: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
        index = {name: number for number, name in enumerate(classes)}
        names = self.manifest.table["label"].iloc[which]
        unknown = sorted(set(names.unique()) - set(index))
        if unknown:
            raise InputError(
                f"labels {unknown} are not among the classes of the model, {list(classes)}"
            )
        return self._labels(names, index)

    @staticmethod
    def _labels(names: pd.Series, index: Mapping[str, int]) -> NDArray[np.int64]:
        """(n,) number of each label; a text for each row would take 60 bytes."""
        codes, distinct = pd.factorize(names)
        numbers: NDArray[np.int64] = np.array([index[name] for name in distinct], np.int64)
        return numbers[codes]
