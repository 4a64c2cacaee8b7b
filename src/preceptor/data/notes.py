"""Notes on a manifest: valid content that is probably a mistake."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd

from preceptor.data.complete_sets import missing_class_notes
from preceptor.data.file_contents import written
from preceptor.data.fingerprints import fingerprints
from preceptor.data.manifest import Manifest
from preceptor.evaluation.split_names import KINDS, kind_of


def notes(manifest: Manifest, cache: Path | None = None) -> list[str]:
    """Notes on a manifest, one line each.

    Args:
        manifest: Manifest whose files all exist.
        cache: Folder with cached content hashes, see `fingerprints`.

    Returns:
        Notes on sets that lack a class, byte-identical images in two kinds of split or with
        different labels, and similar labels.
    """
    content = _contents(manifest, cache)
    return [
        *missing_class_notes(manifest),
        *repeated_image_notes(_repeated(manifest, content)),
        *contradiction_notes(_contradictions(manifest, content)),
        *similar_label_notes(manifest),
    ]


def repeated_images(manifest: Manifest, cache: Path | None = None) -> pd.DataFrame:
    """Images that are byte-identical to an image of another kind of split.

    Args:
        manifest: Manifest.
        cache: Folder with cached content hashes, see `fingerprints`.

    Returns:
        One row per image of the later kind, with columns `kinds` ("train, test") and the names
        `first` and `second` of the two images.
    """
    return _repeated(manifest, _contents(manifest, cache))


def _contents(manifest: Manifest, cache: Path | None) -> pd.Series:
    """Content hashes of the images: those the manifest was read with, or those of its files."""
    if manifest.contents is not None:
        return pd.Series(written(manifest.contents.images), dtype="str")
    return fingerprints(manifest, ["path"], cache)["path"]


def _repeated(manifest: Manifest, content: pd.Series) -> pd.DataFrame:
    frame = pd.DataFrame({"content": content, "name": manifest.table["name"]})
    frame["kind"] = kind_of(manifest.table["split"])
    parts = []
    for one, other in combinations(KINDS, 2):
        known = frame[frame["kind"] == one].drop_duplicates("content")
        both = known.merge(frame[frame["kind"] == other], on="content", suffixes=("", "_second"))
        found = pd.DataFrame({"first": both["name"], "second": both["name_second"]})
        parts.append(found.assign(kinds=f"{one}, {other}"))
    return pd.concat(parts, ignore_index=True)


def contradictory_labels(manifest: Manifest, cache: Path | None = None) -> pd.DataFrame:
    """Images that are byte-identical to an earlier image with another label.

    Args:
        manifest: Manifest.
        cache: Folder with cached content hashes, see `fingerprints`.

    Returns:
        One row per image, with the names `first` and `second` of the two images and their labels
        `first_label` and `second_label`.
    """
    return _contradictions(manifest, _contents(manifest, cache))


def _contradictions(manifest: Manifest, content: pd.Series) -> pd.DataFrame:
    frame = manifest.table[["name", "label"]].assign(content=content)
    first = frame.drop_duplicates("content").rename(columns={"name": "first"})
    both = frame.merge(first, on="content", suffixes=("", "_first"))
    both = both.rename(columns={"name": "second", "label": "second_label"})
    both = both.rename(columns={"label_first": "first_label"})
    other = both[both["first_label"] != both["second_label"]]
    return other[["first", "second", "first_label", "second_label"]].reset_index(drop=True)


def contradiction_notes(found: pd.DataFrame) -> list[str]:
    """Note on `contradictory_labels`, with their number and the first pair."""
    if not len(found):
        return []
    one = found.iloc[0]
    what = "image is" if len(found) == 1 else "images are"
    return [
        f"{len(found):,} {what} byte for byte the same as an image with another label "
        f"({one['second']} is {one['second_label']!r}, {one['first']} is {one['first_label']!r}); "
        "correct the labels, or remove the images"
    ]


def repeated_image_notes(repeated: pd.DataFrame) -> list[str]:
    """Note for each pair of kinds of split with byte-identical images, with their number."""
    found = []
    for kinds, part in repeated.groupby("kinds", sort=False):
        one, other = str(kinds).split(", ")
        images = f"{len(part):,} image{'s' if len(part) > 1 else ''}"
        found.append(
            f"{images} of {other} {'are' if len(part) > 1 else 'is'} byte for byte in {one} too "
            f"({part['second'].iloc[0]} = {part['first'].iloc[0]}): {other} results are better "
            "than they would be on new images; remove them, or give each pair a `group` of its own "
            "and split again"
        )
    return found


def similar_labels(manifest: Manifest) -> list[list[str]]:
    """Labels that differ only in case, in blanks, or in how a number is written (1 and 1.0)."""
    alike: dict[str, list[str]] = {}
    for label in manifest.classes:
        alike.setdefault(_plain(label), []).append(label)
    return [labels for labels in alike.values() if len(labels) > 1]


def similar_label_notes(manifest: Manifest) -> list[str]:
    """Note for each group of similar labels, with the number of images of each."""
    counts = manifest.table["label"].value_counts()
    return [
        "the labels "
        + " and ".join(f"{label!r} ({counts[label]:,} images)" for label in labels)
        + " are different classes; write them in one way if they are not meant to be"
        for labels in similar_labels(manifest)
    ]


def _plain(label: str) -> str:
    """Normalized label, without differences that may be typing errors."""
    text = "".join(label.split()).casefold()
    try:
        return repr(float(text))
    except ValueError:
        return text
