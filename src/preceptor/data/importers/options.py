"""Options of an import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from preceptor.data.importers.frames import ExifRule
from preceptor.data.importers.rasterize import RasterOptions
from preceptor.errors import InputError

Unmarked = Literal["examined", "unknown"]


@dataclass(frozen=True)
class ImportOptions:
    """How annotations become a manifest with maps.

    Args:
        raster: How shapes become maps.
        labels: CSV with `path,label[,split,source,group]`, or None: labels come from the source.
        positive: Classes of shapes that are drawn and give an image its label; empty = all.
        negative: Label of images without such a shape.
        unmarked: What an image without a shape means where the source does not say: `examined`
            (somebody looked, and found nothing to mark) or `unknown` (nobody looked).
        merge: Name of a function of `merge_annotators.MERGES`, or of an annotator whose maps
            alone are used.
        exif: Frame of the coordinates; `auto` = that of the tool.
        split: Shares of splits by name; empty = the splits of the source.
        group_by: Column of `labels`, or regular expression on the path of the image, that
            identifies images that depend on each other.
        seed: Random seed of the splits.
    """

    raster: RasterOptions = field(default_factory=RasterOptions)
    labels: Path | None = None
    positive: tuple[str, ...] = ()
    negative: str = "negative"
    unmarked: Unmarked | None = None
    merge: str = "mean"
    exif: ExifRule = "auto"
    split: dict[str, float] = field(default_factory=dict)
    group_by: str = ""
    seed: int = 0


def parse_split(text: str) -> dict[str, float]:
    """Shares of `--split`: train, val and test, separated by commas.

    Raises:
        InputError: It is another text.

    Example:
        >>> parse_split("0.7,0.15,0.15")
        {'train': 0.7, 'val': 0.15, 'test': 0.15}
    """
    names = ("train", "val", "test")
    try:
        shares = [float(one) for one in text.split(",")]
        if len(shares) != len(names) or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
            raise ValueError
    except ValueError:
        raise InputError(
            f"--split {text!r}: write the shares of train, val and test, which add up to 1, such "
            "as 0.7,0.15,0.15"
        ) from None
    return {name: share for name, share in zip(names, shares, strict=True) if share}
