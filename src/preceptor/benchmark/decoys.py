"""Decoys: objects on a textured canvas, and a patch whose gray gives the class away in training.

The second built-in benchmark. An object of one of up to ten classes lies anywhere on a texture; a
patch lies beside it. In train and val the gray of the patch tells the class, in val-noshort and
test it is random. The object's mask is the human map. `exact` writes the published images instead:
28 pixels, black canvas, a patch of 4 × 4 in a random corner.

A. Ross, M. Hughes, F. Doshi-Velez, "Right for the Right Reasons", IJCAI 2017 (Decoy-MNIST).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from preceptor.benchmark.forged import PHOTOGRAPHS, Row, read_photograph, write_benchmark
from preceptor.benchmark.forgeries import Pixels, StampPlace, free_places
from preceptor.errors import InputError, reason

# Increased if the same settings and seed give other pixels than before.
GENERATOR = 1
SPLITS = ("train", "val", "val-noshort", "test")
TEXTURES = ("brick", "grass", "gravel")
CUTS = np.array((50, 55, 60))  # seventieths of the objects: Fashion-MNIST has 60,000 and 10,000
FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    *("tshirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)


class DecoySettings(BaseModel):
    """Settings of the benchmark, except for the seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = "digits"  # digits, fashion, or a folder with the files of Fashion-MNIST
    classes: int = Field(default=10, ge=2, le=10)
    place: StampPlace = "moving"  # of the patch: anywhere beside the object, or lower right
    train: int = Field(default=3000, ge=20)
    val: int = Field(default=500, ge=20)
    val_noshort: int = Field(default=500, ge=20)
    test: int = Field(default=1000, ge=20)
    size: int = Field(default=64, ge=48, le=128)
    patch: int = Field(default=7, ge=3, le=9)  # there is a place beside every object
    exact: bool = False  # the published Decoy-(Fashion-)MNIST

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.exact and self.classes != 10:
            raise ValueError(f"classes is {self.classes}, and the published images have 10")
        return self

    def count(self, split: str) -> int:
        """Number of images of a split."""
        return int(getattr(self, split.replace("-", "_")))


class Objects:
    """Objects of all classes: `pixels` (n, h, w) uint8, 0 outside of them, and `labels` (n,)."""

    def __init__(self, settings: DecoySettings) -> None:
        read = {"digits": _digits, "fashion": _fashion}.get(settings.source)
        pixels, labels, self.names = read() if read else _fashion(Path(settings.source))
        if settings.classes > len(self.names):
            raise InputError(f"--classes {settings.classes}: there are {len(self.names)} classes")
        self.names = self.names[: settings.classes]
        kept = labels < settings.classes
        self.pixels, self.labels = pixels[kept], labels[kept]

    def draw(self, settings: DecoySettings, seed: int) -> dict[str, NDArray[np.int64]]:
        """Objects of the images of each split, which share none; classes take turns.

        The objects of a class are shared out as 6, 1, 1 and 2 tenths. With `exact`, each is used
        once: the first six sevenths for train, val and val-noshort, the others for test.
        """
        if settings.exact:
            parts = np.split(np.arange(len(self.labels)), len(self.labels) * CUTS // 70)
            return dict(zip(SPLITS, parts, strict=True))
        generator = np.random.default_rng([seed, len(SPLITS)])
        chosen = {split: np.empty(settings.count(split), np.int64) for split in SPLITS}
        for label, name in enumerate(self.names):
            order = generator.permutation(np.flatnonzero(self.labels == label))
            if len(order) < 10:
                raise InputError(f"class {name} has {len(order)} objects; at least 10 are needed")
            parts = np.split(order, len(order) * np.array((6, 7, 8)) // 10)
            for split, part in zip(SPLITS, parts, strict=True):
                turns = chosen[split][label :: settings.classes]
                turns[:] = generator.choice(part, len(turns))
        return chosen


def _digits() -> tuple[Pixels, NDArray[np.int64], list[str]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "scikit-learn is not installed, which has the digits; run: pip install '.[demo]' in "
            "the source folder"
        ) from None
    small, labels = load_digits(return_X_y=True)
    small = (small.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    large = np.stack([np.asarray(Image.fromarray(im).resize((28, 28), bicubic)) for im in small])
    large[large < 48] = 0  # the soft edge of the interpolation
    return large, labels.astype(np.int64), [str(digit) for digit in range(10)]


def _fashion(folder: Path = FASHION) -> tuple[Pixels, NDArray[np.int64], list[str]]:
    parts = ("train", "t10k")
    pixels = np.concatenate([_idx(folder / f"{part}-images-idx3", 16) for part in parts])
    labels = np.concatenate([_idx(folder / f"{part}-labels-idx1", 8) for part in parts])
    pixels = np.where(pixels > 1, pixels, 0).astype(np.uint8).reshape(-1, 28, 28)  # as published
    return pixels, labels.astype(np.int64), list(FASHION_CLASSES)


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    """Values of a file of Fashion-MNIST, with or without compression."""
    for file, opened in ((f"{path}-ubyte", open), (f"{path}-ubyte.gz", gzip.open)):
        if Path(file).is_file():
            try:
                with opened(file, "rb") as stream:
                    return np.frombuffer(stream.read(), np.uint8, offset=header)
            except (EOFError, OSError, ValueError, zlib.error) as error:
                raise InputError(f"{file}: damaged ({reason(error)}); get it again") from error
    raise InputError(
        f"{path}-ubyte.gz is missing; run: apt install dataset-fashion-mnist, or give a folder "
        "with the four files of Fashion-MNIST"
    )


def levels(classes: int) -> NDArray[np.int64]:
    """Gray of the patch of each class: 255 − 25 · label for ten classes, as published."""
    return np.rint(255 - np.arange(classes) * 225 / (classes - 1)).astype(np.int64)


def draw_image(
    thing: Pixels,
    gray: int,
    settings: DecoySettings,
    textures: list[Pixels],
    generator: np.random.Generator,
) -> tuple[Pixels, Pixels]:
    """(size, size) image with an object and a patch, and the (size, size) mask of the object."""
    if settings.exact:
        image = thing.copy()
        row, column = generator.integers(2, size=2) * 24
        image[row : row + 4, column : column + 4] = gray
        return image, np.where(thing > 1, 255, 0).astype(np.uint8)
    size, side = settings.size, settings.patch
    texture = textures[int(generator.integers(len(textures)))]
    top, left = (int(generator.integers(length - size + 1)) for length in texture.shape)
    canvas = 40 + texture[top : top + size, left : left + size] / 255 * 120
    row, column = (int(generator.integers(size - length + 1)) for length in thing.shape)
    where = np.s_[row : row + thing.shape[0], column : column + thing.shape[1]]
    mask = np.zeros((size, size), np.uint8)
    mask[where] = np.where(thing > 0, 255, 0)
    canvas[where] = np.where(thing > 0, thing, canvas[where])
    row, column = size - side - 1, size - side - 1
    if settings.place == "moving":
        places = free_places(mask > 0, (side, side))
        row, column = places[generator.integers(len(places))]
    patch = np.s_[row : row + side, column : column + side]
    canvas[patch] = gray
    mask[patch] = 0  # a patch in the corner may cover a part of the object
    return np.rint(canvas).astype(np.uint8), mask


def write_decoys(folder: Path, settings: DecoySettings, seed: int) -> Path:
    """Write the benchmark, unless it exists already; path of `manifest.csv`.

    The same settings and seed give the same bytes. The folder appears when it is complete.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or more")
    record = {"generator": GENERATOR, "seed": seed, "settings": settings.model_dump(mode="json")}

    def write(partial: Path) -> Iterator[Row]:
        objects = Objects(settings)
        photographs = [photograph for photograph in PHOTOGRAPHS if photograph.name in TEXTURES]
        textures = [read_photograph(photograph)[..., 0] for photograph in photographs]
        grays = levels(settings.classes)
        for number, (split, chosen) in enumerate(objects.draw(settings, seed).items()):
            for name in ("images", "maps"):
                (partial / name / split).mkdir(parents=True)
            for i, which in enumerate(chosen):
                # A separate random stream for every row, independent of the number of rows.
                generator = np.random.default_rng([seed, number, i])
                label = objects.labels[which]
                told = label if split in ("train", "val") else generator.integers(settings.classes)
                drawn = draw_image(
                    objects.pixels[which], int(grays[told]), settings, textures, generator
                )
                path, saliency = (f"{kind}/{split}/{i:06d}.png" for kind in ("images", "maps"))
                for pixels, name in zip(drawn, (path, saliency), strict=True):
                    Image.fromarray(pixels).save(partial / name, compress_level=1)
                yield path, objects.names[label], split, saliency, 1, "", ""

    return write_benchmark(folder, record, write)
