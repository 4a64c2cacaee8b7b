"""Images of an audit, and their files for models from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data import swaps
from preceptor.data.checks import Findings, read_table
from preceptor.errors import InputError
from preceptor.maps.marked import Marked, swap_marked
from preceptor.utils.files import replacing
from preceptor.utils.results import digest

TABLE = "images.csv"


@dataclass(frozen=True)
class Pictures:
    """Images about which a model is asked."""

    marked: Marked
    swapped: swaps.SwappedImages
    sets: dict[str, NDArray[np.uint8]]  # (m, H, W, C) ordinary, swapped, outside, inside
    key: str  # of the names of their files: it depends on all that determines them


def make_pictures(marked: Marked, form: ImageFormat, classes: Sequence[str], seed: int) -> Pictures:
    """Ordinary, swapped, outside-only and inside-only images."""
    images, swapped = marked.images, swap_marked(marked, len(classes), seed)
    sets = {
        "ordinary": images.pixels,
        "swapped": swapped.pixels,
        "outside": swaps.outside_only(images, seed=seed),
        "inside": swaps.inside_only(images, seed=seed),
    }
    names = marked.table["name"].tolist()
    key = digest([names, form.size, form.fit, form.channels, list(classes), seed])[:8]
    return Pictures(marked, swapped, sets, key)


def _files(pictures: Pictures) -> dict[str, list[str]]:
    return {
        kind: [f"{kind}-{pictures.key}-{at:05d}.png" for at in range(len(pixels))]
        for kind, pixels in pictures.sets.items()
    }


def write_pictures(pictures: Pictures, folder: Path) -> None:
    """Write the images as PNG with the table `images.csv`, a manifest for `preceptor predict`."""
    table, swapped, rows = pictures.marked.table, pictures.swapped, []
    files = _files(pictures)
    if folder.exists():
        raise InputError(f"{folder} exists already; name a new folder for the images")
    with replacing(folder) as partial:
        partial.mkdir()
        for kind, pixels in pictures.sets.items():
            for at, (file, one) in enumerate(zip(files[kind], pixels, strict=True)):
                Image.fromarray(one[..., 0] if one.shape[2] == 1 else one).save(partial / file)
                inside = int(swapped.inside[at]) if kind == "swapped" else at
                outside = int(swapped.outside[at]) if kind == "swapped" else at
                names = (str(table["name"][one]) for one in (inside, outside))
                rows.append((file, kind, *names, table["label"][inside], table["label"][outside]))
        columns = ["path", "kind", "inside", "outside", "label", "outside_label"]
        pd.DataFrame(rows, columns=columns).to_csv(partial / TABLE, index=False)


def read_scores(
    path: Path, pictures: Pictures, classes: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """(m, C) scores of each set from a table with the columns path and `score_CLASS`."""
    table = read_table(path, Findings(str(path)))
    columns = [f"score_{name}" for name in classes]
    if lacking := [name for name in ("path", *columns) if name not in table]:
        raise InputError(f"{path}: column {lacking[0]} is missing; add it (preceptor predict does)")
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if (wrong := ~np.isfinite(values).all(1)).any():
        first = table["path"].iloc[int(wrong.argmax())]
        raise InputError(
            f"{path}: {wrong.sum():,} of {len(values):,} images have a score that is no number, "
            f"the first is {first}; score them again"
        )
    places = {Path(str(name)).name: at for at, name in enumerate(table["path"])}
    found = {}
    for kind, files in _files(pictures).items():
        if missing := [file for file in files if file not in places]:
            raise InputError(
                f"{path}: {len(missing):,} of {len(files):,} {kind} images have no score, the "
                f"first is {missing[0]}; score all images of {TABLE}, and give this command the "
                "options that --write-images had"
            )
        found[kind] = values[[places[file] for file in files]]
    return found
