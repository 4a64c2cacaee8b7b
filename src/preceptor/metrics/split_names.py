"""Names of splits: the kind of a split, and suggestions for invalid names."""

from __future__ import annotations

import difflib
import re
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SplitKind = Literal["train", "val", "test"]
KINDS: tuple[SplitKind, ...] = get_args(SplitKind)
SWAPPED = "swapped"
"""Set of swapped validation images in the scores of a run; not a split of a manifest."""
KNOWN_SPLITS = "train, val, val-NAME, test or test-NAME"

_TRAIN = ("train", "training", "tr")
_VAL = ("val", "valid", "validation", "dev", "development", "eval", "evaluation")
_TEST = ("test", "testing", "tests", "te")
_WORDS: dict[str, SplitKind] = {
    **dict.fromkeys(_TRAIN, "train"),
    **dict.fromkeys(_VAL, "val"),
    **dict.fromkeys(_TEST, "test"),
}


def kind_or_none(name: str) -> SplitKind | None:
    """Kind of a split: train, val (`val` or `val-NAME`), test (`test` or `test-NAME`), or None."""
    if name == "train":
        return "train"
    return next((kind for kind in KINDS[1:] if name == kind or name.startswith(f"{kind}-")), None)


def kind_of(splits: pd.Series) -> NDArray[np.object_]:
    """Kind of each split name as in `kind_or_none`, but "" for invalid names."""
    codes, names = pd.factorize(splits)
    kinds = [kind_or_none(str(name)) or "" for name in names]
    return np.array([*kinds, ""], dtype=object)[codes]


def split_hint(name: str) -> str:
    """Remedy for an invalid name: the nearest valid name, or all valid names."""
    parts = re.fullmatch(r"[\W_]*([^\W\d_]*)[\W_]*(.*)", name.strip(), re.DOTALL)
    assert parts is not None, "every text matches"
    word, rest = parts[1].lower(), parts[2]
    near = difflib.get_close_matches(word, _WORDS, 1, cutoff=0.6)
    if not near:
        return f"write {KNOWN_SPLITS}"
    kind = _WORDS[near[0]]
    meant = f"{kind}-{rest}" if rest and kind != "train" else kind
    return f"did you mean {meant}?"
