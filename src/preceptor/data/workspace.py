"""What runs over one manifest share: the table, the content hashes and the image caches."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from preceptor.config.run import Amount, RunConfig, Training
from preceptor.data.annotated import draw_annotated
from preceptor.data.cache import ImageSource, open_images
from preceptor.data.loader import Rows
from preceptor.data.manifest import Manifest
from preceptor.data.row_hashes import RowHashes
from preceptor.errors import InputError
from preceptor.evaluation.split_names import kind_of
from preceptor.maps.soft_labels import soft_targets
from preceptor.maps.targets import build_guides
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidableModel
from preceptor.runtime.result_folder import digest, file_digest
from preceptor.training.prepare import run_id, weights_digest


def default_cache_dir() -> Path:
    """Where caches live unless told otherwise: PRECEPTOR_CACHE, or the user's cache folder."""
    if "PRECEPTOR_CACHE" in os.environ:
        return Path(os.environ["PRECEPTOR_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "preceptor"


def canvas_side(settings: Training, input_size: int) -> int:
    """Side of the cached canvas: the input's, or larger, so that a random crop keeps its detail.

    The smallest crop then has the input's resolution, up to twice its side.
    """
    if settings.augmentation.crop_area == 1:
        return input_size
    return min(2 * input_size, math.ceil(input_size / math.sqrt(settings.augmentation.crop_area)))


class Workspace:
    """A manifest with everything that its runs share, opened when first needed.

    Args:
        manifest: The table, checked.
        cache_dir: Of image caches and file hashes; None = the default.
    """

    def __init__(self, manifest: Manifest, cache_dir: Path | None = None) -> None:
        self.manifest = manifest
        self.cache_dir = cache_dir or default_cache_dir()
        self._images: dict[tuple[int, str, int, str], ImageSource] = {}
        self._weights: dict[str, str] = {}
        self._folders: dict[Path, str] = {}
        self._annotated: dict[tuple[Amount | None, int], NDArray[np.bool_]] = {}
        split = manifest.table["split"]
        self.train_mask = (split == "train").to_numpy()
        self.class_index = {name: index for index, name in enumerate(manifest.classes)}
        codes = manifest.table["label"].map(self.class_index)
        self.labels: NDArray[np.int64] = codes.to_numpy().astype(np.int64)

    @classmethod
    def open(cls, path: Path, cache_dir: Path | None = None, *, verify: bool = False) -> Workspace:
        """Read a manifest; `verify` decodes every image and map first."""
        return cls(Manifest.read(path, verify=verify), cache_dir)

    @cached_property
    def hashes(self) -> RowHashes:
        """Content hashes of the rows."""
        return RowHashes(self.manifest, self.cache_dir / "fingerprints.parquet")

    def images(self, settings: Training, input_size: int) -> ImageSource:
        """Canvases for a training's settings."""
        side = canvas_side(settings, input_size)
        key = (side, settings.fit, settings.in_chans, settings.cache)
        if key not in self._images:
            self._images[key] = open_images(
                self.manifest,
                side=side,
                fit=settings.fit,
                channels=settings.in_chans,
                cache_dir=self.cache_dir if settings.cache == "memmap" else None,
            )
        return self._images[key]

    def annotated(self, config: RunConfig) -> NDArray[np.bool_]:
        """A: the training rows that count as annotated."""
        key = (config.annotated, config.annotated_seed)
        if key not in self._annotated:
            self._annotated[key] = draw_annotated(self.manifest, *key)
            self._annotated[key].flags.writeable = False
        return self._annotated[key]

    def training_rows(self, config: RunConfig) -> NDArray[np.int64]:
        """The manifest rows that a run trains on."""
        mask = self.annotated(config) if config.rows == "annotated" else self.train_mask
        return np.flatnonzero(mask)

    def human_maps_from(self, config: RunConfig) -> NDArray[np.bool_]:
        """The rows whose human maps a run may use: A, or every training row that has one."""
        if config.annotated is None and config.rows == "all":
            return self.train_mask
        return self.annotated(config)

    def split_rows(self, kind: str) -> NDArray[np.int64]:
        """The rows of all validation (`val`) or test (`test`) sets."""
        return np.flatnonzero(kind_of(self.manifest.table["split"]) == kind)

    def run_id(self, config: RunConfig) -> str:
        """The run's id, from its config and the content that it uses."""
        rows = self.training_rows(config)
        mapped: NDArray[np.bool_] | None = None
        maps = config.maps
        if config.guided and (maps.kind == "human" or maps.human == "keep"):
            mapped = self.hashes.has_map[rows] & self.human_maps_from(config)[rows]
        if config.guided and maps.kind == "human" and config.guide_classes is not None:
            # Classes without human maps cannot be guided by them: naming them changes nothing.
            labels = self.manifest.table["label"].iloc[rows]
            assert mapped is not None
            mapped &= labels.isin(config.guide_classes).to_numpy(bool)
            config = config.model_copy(update={"guide_classes": None})
        if config.guided and maps.kind == "store" and maps.identity is None:
            assert maps.path is not None
            known_maps = maps.model_copy(update={"identity": self._folder(maps.path, "maps")})
            config = config.model_copy(update={"maps": known_maps})
        soft = config.soft_labels
        if soft is not None and soft.identity is None:
            known = soft.model_copy(update={"identity": self._folder(soft.path, "soft_labels")})
            config = config.model_copy(update={"soft_labels": known})
        if config.weights not in self._weights:
            self._weights[config.weights] = weights_digest(config.weights)
        used = self.hashes.of(rows, mapped, weighted=config.guided) + self.validation_hash()
        files = files_digest(config.backbone_args)
        return run_id(config, used + files, self._weights[config.weights])

    def validation_hash(self) -> str:
        """The hash of all validation rows and of their human maps, with which maps are compared."""
        rows = self.split_rows("val")
        return self.hashes.of(rows, self.hashes.has_map[rows])

    def _folder(self, path: Path, word: str) -> str:
        """`folder_digest`, once for all runs of a study."""
        if path not in self._folders:
            self._folders[path] = folder_digest(path, word)
        return self._folders[path]

    def rows(
        self,
        which: NDArray[np.int64],
        settings: Training,
        input_size: int,
        classes: Sequence[str] | None = None,
        **guidance: object,
    ) -> Rows:
        """The data of these manifest rows for a model of this input size.

        Args:
            which: Manifest rows.
            settings: How images are brought to the model.
            input_size: In pixels.
            classes: What labels are numbered by; None = the manifest's classes. A trained model
                brings its own: the manifest at hand may hold some of them only.
            guidance: `guides`, `grid` and `soft` of `Rows`.

        Raises:
            InputError: A label that the classes do not have.
        """
        weights = self.manifest.table["sample_weight"].to_numpy(np.float32)[which]
        return Rows(
            images=self.images(settings, input_size),
            rows=which,
            labels=self.labels[which] if classes is None else self._labels(which, classes),
            size=input_size,
            fit=settings.fit,
            sample_weight=None if (weights == 1).all() else weights,
            **guidance,  # type: ignore[arg-type]
        )

    def _labels(self, which: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
        index = {name: number for number, name in enumerate(classes)}
        names = self.manifest.table["label"].to_numpy(object)[which]
        unknown = sorted({str(name) for name in names} - set(index))
        if unknown:
            raise InputError(f"labels {unknown}: the model knows {list(classes)} alone")
        codes: NDArray[np.int64] = np.array([index[name] for name in names], np.int64)
        return codes

    def build(self, config: RunConfig) -> GuidableModel:
        """The untrained model of a run.

        Raises:
            InputError: See `build_model`; and for two classes without a positive one.
        """
        classes = self.manifest.classes
        if len(classes) == 2 and config.positive is None:
            raise InputError(f"positive: name which of {classes} is the positive class")
        unknown = sorted(set(config.guide_classes or ()) - set(classes))
        if unknown:
            raise InputError(f"guide_classes: {unknown} not among the classes {classes}")
        return build_model(
            config.backbone,
            classes,
            positive=config.positive,
            weights=config.weights,
            in_chans=config.training.in_chans,
            input_size=config.training.input_size,
            fit=config.training.fit,
            backbone_args=config.backbone_args,
            head=config.training.head,
            cam_source=config.training.cam_source,
        )

    def guided_rows(self, config: RunConfig, model: GuidableModel) -> Rows:
        """The training data of a run, with the maps that guide it and its soft labels."""
        which = self.training_rows(config)
        size = model.spec.input_size
        grid = model.guidable_grid() if config.guided else model.grid()
        images = self.images(config.training, size)
        guides = build_guides(config, self.manifest, images, which, self.human_maps_from(config))
        soft = None
        if config.soft_labels is not None:
            names = self.manifest.table["name"].to_numpy(object)[which]
            soft = soft_targets(config.soft_labels.path, names, model.spec.classes)
        return self.rows(which, config.training, size, guides=guides, grid=grid, soft=soft)


def plain_settings(model: GuidableModel, cache: Literal["memmap", "none"]) -> Training:
    """How images are brought to a trained model, without augmentation."""
    return Training(
        fit=model.spec.fit,
        in_chans=model.spec.in_chans,
        cache=cache,
    )


def files_digest(arguments: Mapping[str, Any]) -> str:
    """The content of the files that arguments name; "" where they name none."""
    named = {
        key: file_digest(Path(value))
        for key, value in arguments.items()
        # Not Path.is_file, which raises on a text that is too long to be a name.
        if isinstance(value, str | Path) and os.path.isfile(value)  # noqa: PTH113
    }
    return digest(named) if named else ""


def folder_digest(folder: Path, word: str) -> str:
    """Content of all files of a folder of maps, which `word` of the config names."""
    if not folder.is_dir():
        raise InputError(f"{word}: {folder} is not a folder")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return digest([[file.relative_to(folder).as_posix(), file_digest(file)] for file in files])
