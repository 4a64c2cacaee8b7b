"""Built-in benchmark: crops of photographs, half of them forged in one region.

`write_forged` writes a folder with images, maps and a manifest. The forged region is the human map;
authentic crops have no map. The seed determines the assignment of photographs to training and test,
the crops, regions and forgeries.

| split | photographs | kinds | stamp |
| --- | --- | --- | --- |
| train | training, one part of each | `kinds` | goes with the label |
| val | training, the other part of each | `kinds` | goes with the label |
| val-noshort | development | `kinds` | none |
| test-seen | test | `kinds` | none |
| test-unseen | test | `unseen_kinds` | none |

**Groups.** Train and val are from the same photographs, as in a random split of one collection, but
share no pixels: each training photograph is cut in two along its longer side, and crops stay within
one part. `group` is the name of the photograph, with `/a` (train) or `/b` (val) for the parts, so
that no group is in two kinds of split.

**Independence of content and label.** A crop is accepted only if its forgery would be visible; its
label then determines whether the forged or the authentic pixels are written. Therefore both classes
have the same photographs, texture and brightness.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from preceptor.benchmark.forged_examples import (
    Area,
    draw_areas,
    draw_example,
    photograph_checksums,
)
from preceptor.benchmark.forged_settings import SPLITS, ForgedSettings, Split
from preceptor.benchmark.forgeries import Pixels, corner_place, random_place, stamp
from preceptor.errors import InputError, RunFailedError
from preceptor.utils.files import replacing

# Increased if the same settings and seed give other pixels than before.
GENERATOR = 2

COLUMNS = ("path", "label", "split", "saliency", "annotated", "source", "group")


def _save(pixels: Pixels, path: Path) -> None:
    # Level 1: crops of photographs hardly compress, and higher levels take several times as long.
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def _write_split(
    folder: Path, split: Split, areas: list[Area], settings: ForgedSettings, seed: int
) -> list[tuple[str | int, ...]]:
    """Write the images and maps of a split under `folder`; returns its manifest rows."""
    kinds = settings.unseen_kinds if split == "test-unseen" else settings.kinds
    stamped = split in ("train", "val") and settings.stamp_strength > 0
    for name in ("images", "maps"):
        (folder / name / split).mkdir(parents=True)
    rows: list[tuple[str | int, ...]] = []
    for i in range(settings.count(split)):
        # A separate random stream for every row, independent of the number of rows before it.
        generator = np.random.default_rng([seed, SPLITS.index(split), i])
        forged, kind = i % 2 == 1, kinds[i // 2 % len(kinds)]
        example = draw_example(areas, kind, settings, generator)
        image = example.forged if forged else example.authentic
        rate = settings.stamp_rate if forged else 1 - settings.stamp_rate
        if stamped and generator.random() < rate:
            if settings.stamp_place == "corner":
                place = corner_place(settings.size)
            else:
                place = random_place(example.region, generator)
            image = stamp(image, settings.stamp_strength, place)
        path, saliency = f"images/{split}/{i:06d}.png", ""
        _save(image, folder / path)
        if forged:
            saliency = f"maps/{split}/{i:06d}.png"
            _save(example.region, folder / saliency)
        label, source = ("forged", kind) if forged else ("authentic", "authentic")
        rows.append((path, label, split, saliency, 1, source, example.group))
    return rows


def _write_all(folder: Path, settings: ForgedSettings, seed: int) -> None:
    areas = draw_areas(settings.size, seed)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split in SPLITS:
            writer.writerows(_write_split(folder, split, areas[split], settings, seed))


def _is_there(folder: Path, record: dict[str, object]) -> bool:
    """Whether `folder` already contains the benchmark described by `record`.

    Raises:
        InputError: The folder is a file, or has other contents.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the forged photographs")
    try:
        found = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"{folder}: is not empty and has no forged photographs; name another folder"
        ) from None
    if found != record or not (folder / "manifest.csv").is_file():
        raise InputError(
            f"{folder}: has forged photographs with other settings, seed or version; "
            "name another folder or remove this one"
        )
    return True


def write_forged(folder: Path, settings: ForgedSettings, seed: int) -> Path:
    """Write the benchmark (images, human maps, manifest), unless it exists already.

    The same settings and seed give the same bytes. The folder is written atomically: it is filled
    under a temporary name and then renamed.

    Args:
        folder: Output folder; it must not exist, be empty, or contain the same benchmark.
        settings: Settings, such as `PRESETS["full"]` or `PRESETS["tiny"]`.
        seed: Random seed, 0 or more, of photographs, crops, regions and forgeries.

    Returns:
        Path of `manifest.csv`.

    Raises:
        InputError: scikit-image is not installed, the folder has other contents, or no visible
            forgery exists with these settings.
        RunFailedError: The disk is full or cannot be written to.

    Example:
        >>> import tempfile
        >>> from preceptor.benchmark.forged_settings import PRESETS
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     manifest = write_forged(Path(parent) / "forged", PRESETS["tiny"], seed=0)
        ...     print(manifest.read_text().splitlines()[0])
        path,label,split,saliency,annotated,source,group
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or more")
    record: dict[str, object] = {
        "generator": GENERATOR,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "photographs": photograph_checksums(),
    }
    if _is_there(folder, record):
        return folder / "manifest.csv"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder, flush=False) as partial:
            partial.mkdir()
            _write_all(partial, settings, seed)
            (partial / "settings.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise RunFailedError(
            f"{folder}: the forged photographs cannot be written: {error}"
        ) from error
    return folder / "manifest.csv"


def write_draws(folder: Path, settings: ForgedSettings, seeds: Sequence[int]) -> Path:
    """Write a draw of the benchmark for each seed, as `folder/SEED/`.

    Args:
        folder: Output folder; existing draws are kept.
        settings: Settings of all draws.
        seeds: Seeds, 0 or more each.

    Returns:
        Pattern of the manifests for a study: `folder/{seed}/manifest.csv`.

    Raises:
        InputError, RunFailedError: See `write_forged`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the draws")
    for seed in seeds:
        write_forged(folder / str(seed), settings, seed)
    return folder / "{seed}" / "manifest.csv"
