"""Manifest: the table of images."""

# os.path.abspath and not Path.resolve(): a manifest's paths start from where it is linked.
# ruff: noqa: PTH100, PTH118

from __future__ import annotations

import csv
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.checks import (
    REQUIRED,
    ROW_FROM_ZERO,
    Findings,
    check_cells,
    check_columns,
    check_files,
    read_table,
)
from preceptor.metrics.split_names import KINDS, kind_or_none
from preceptor.utils.files import relative_path, replacing

if TYPE_CHECKING:
    from preceptor.config.settings import ImageFormat
    from preceptor.data.store import FileContents
    from preceptor.utils.text import Progress


class Checks(TypedDict, total=False):
    """What is checked when a table of images is read."""

    verify: bool  # decode every image and map; otherwise they must only exist
    workers: int | None  # decoding threads; None = one per core
    need: Collection[str]  # required kinds of split; if empty, the column may be missing
    classes: Collection[str] | None  # allowed labels; None = any
    progress: Progress | None  # called with (done, total) while files are decoded
    cache_dir: Path | None  # with `verify`: unchanged files that it knows are not read
    formats: Collection[ImageFormat]  # of which the cache is filled in the same pass


@dataclass(frozen=True, eq=False)
class Manifest:
    """Validated table of images.

    Args:
        table: One row per image, index 0..n-1 in file order, with the columns `path` (absolute,
            or a URL), `name` (the path as written, which identifies the image in outputs),
            `label`, `split`, `saliency` (absolute, or ""), `annotated` (bool), `source` and `group`
            ("" if unknown), `map_weight` and `sample_weight` (float), `annotation_seconds` (float,
            NaN if unknown), followed by the other columns of the table.
        root: Base folder of relative paths.
        source: File from which the table was read, if any.
        contents: Content hashes of its files from when they were verified; None = not known.
    """

    table: pd.DataFrame
    root: Path
    source: Path | None = None
    contents: FileContents | None = None

    @staticmethod
    def read(path: Path | str, **checks: Unpack[Checks]) -> Manifest:
        """Read and validate a manifest file.

        Args:
            path: CSV (comma, semicolon or tab; UTF-8) or Parquet file.
            checks: What is checked, see `Checks`; `verify` is on by default.

        Raises:
            ProblemsError: The manifest is invalid; lists all problems with row, value and remedy.

        Example:
            >>> Manifest.read("nowhere.csv")
            Traceback (most recent call last):
            preceptor.errors.ProblemsError: nowhere.csv: 1 problem
              the file: there is no such file; correct the path
        """
        findings = Findings(str(path))
        place = Path(os.path.abspath(path))
        raw = read_table(Path(path), findings)
        return replace(check_raw(raw, place.parent, findings, **checks), source=place)

    @staticmethod
    def read_unsplit(path: Path | str) -> Manifest:
        """Read a manifest file whose splits are to be made; its column `split` is not read."""
        findings, place = Findings(str(path)), Path(os.path.abspath(path))
        raw = read_table(Path(path), findings)
        cells = raw.drop(columns="split", errors="ignore")
        checks: Checks = {"verify": False, "need": ()}
        manifest = check_raw(cells, place.parent, findings, **checks)
        return replace(manifest, source=place)

    @staticmethod
    def from_frame(
        frame: pd.DataFrame,
        root: Path | str,
        source: Path | str | None = None,
        **checks: Unpack[Checks],
    ) -> Manifest:
        """Check a data frame as `read` checks a file."""
        findings = Findings(str(source or "the table"), ROW_FROM_ZERO)
        raw = frame.reset_index(drop=not {*frame.index.names} - {None, *frame.columns})
        checks.setdefault("verify", False)
        manifest = check_raw(raw, Path(os.path.abspath(root)), findings, **checks)
        return replace(manifest, source=Path(source) if source is not None else None)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def classes(self) -> list[str]:
        """Sorted labels."""
        return sorted(str(label) for label in self.table["label"].unique())

    @property
    def train_mask(self) -> NDArray[np.bool_]:
        """(n,) whether a row is in the training split."""
        return (self.table["split"] == "train").to_numpy(bool)

    @property
    def annotated_mask(self) -> NDArray[np.bool_]:
        """(n,) whether a row was examined by a person, in any split."""
        return self.table["annotated"].to_numpy(bool)

    @property
    def map_mask(self) -> NDArray[np.bool_]:
        """(n,) whether a row has a human map."""
        return (self.table["saliency"] != "").to_numpy(bool)

    def eval_splits(self, kind: str) -> list[str]:
        """Evaluation sets of a kind, in order of appearance."""
        if kind not in ("val", "test"):
            raise ValueError(f"kind must be 'val' or 'test', not {kind!r}")
        names = map(str, self.table["split"].unique())
        return [name for name in names if kind_or_none(name) == kind]

    def write(self, path: Path | str) -> None:
        """Write the manifest to a file that `read` converts back to the same table."""
        target = Path(os.path.abspath(path))
        table = self.table.copy()
        for column in ("path", "saliency"):
            table[column] = _relative(table[column], target.parent)
        if table["path"].equals(table["name"]):
            table = table.drop(columns="name")
        table["annotated"] = table["annotated"].astype(int)
        with replacing(target) as partial:
            if target.suffix.lower() in (".parquet", ".pq"):
                table.to_parquet(partial, index=False)
            else:
                partial.write_text(_csv(table), encoding="utf-8", newline="")


def check_raw(
    raw: pd.DataFrame, root: Path, findings: Findings, **checks: Unpack[Checks]
) -> Manifest:
    """Validate uninterpreted cells and their files; for readers of other formats."""
    need, classes = checks.pop("need", KINDS), checks.pop("classes", None)
    if unknown := set(need) - set(KINDS):
        raise ValueError(f"need names kinds of split ({', '.join(KINDS)}), not {unknown}")
    check_columns(raw, REQUIRED if need else REQUIRED[:2], findings)
    if (shown := os.fsencode(root).decode("utf-8", "backslashreplace")) != str(root):
        what = f"the name of its folder, {shown}, is not UTF-8"
        findings.add(None, what, "rename the folder", where="the file")
        findings.raise_if_any()
    table = check_cells(raw, root, findings, need, classes)
    contents = check_files(table, root, findings, **checks)  # type: ignore[misc]
    findings.raise_if_any()
    return Manifest(table, root, contents=contents)


def _csv(table: pd.DataFrame) -> str:
    strings = [c for c in table if pd.api.types.is_string_dtype(table[c])]
    # The reader drops unquoted blanks after a delimiter.
    padded = any(table[c].str.startswith(" ").any() for c in strings)
    quoting: Literal[0, 1] = csv.QUOTE_ALL if padded else csv.QUOTE_MINIMAL
    return str(table.to_csv(index=False, quoting=quoting))


def _relative(paths: pd.Series, folder: Path) -> pd.Series:
    prefix = os.path.join(folder, "")
    if (paths.str.startswith(prefix) | (paths == "")).all():
        return paths.str.removeprefix(prefix)

    return paths.map(lambda path: relative_path(path, folder) if path else "").astype("str")
