"""Stratified splits by label and source, with whole groups and held-out sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from preceptor.data.hold_out import drawn_for_missing_classes
from preceptor.data.manifest import Manifest
from preceptor.data.manifest_cells import text
from preceptor.data.stratified import Strata, assign
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.evaluation.split_names import kind_of, split_hint
from preceptor.evaluation.units import unit_codes


def make_splits(
    manifest: Manifest | pd.DataFrame,
    fractions: Mapping[str, float],
    seed: int,
    hold_out: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Assign every image to a split, stratified by label and source.

    The shares apply to the images that are not held out. The size of each split is met to within
    the size of the largest group. Without groups, it is met to within one image, and so is the
    share of each label; the shares of every (label, source) are met as closely as this and the
    groups allow. A label with too few images for all splits goes to the training split first.

    Args:
        manifest: Manifest with `label` and, if known, `source` and `group`. Existing splits are
            replaced; `Manifest.read_unsplit` reads a table for this.
        fractions: Share of each split, above 0, adding up to 1; names as in a manifest.
        seed: Random seed.
        hold_out: Sources that are assigned to a split of their own as a whole, such as
            {"lens-x": "test-unseen"}. Images of classes that such a set lacks are added from other
            sources, see `hold_out.drawn_for_missing_classes`.

    Returns:
        Copy of the table with `split` filled.

    Raises:
        InputError: A seed, share, name or source is invalid, or a held-out source would divide a
            group.

    Example:
        >>> frame = pd.DataFrame({"path": list("abcdefgh"), "label": ["real", "fake"] * 4})
        >>> splits = make_splits(frame, {"train": 0.5, "val": 0.25, "test": 0.25}, seed=0)
        >>> splits.groupby("label")["split"].value_counts().unstack().loc["fake"].to_dict()
        {'test': 1, 'train': 2, 'val': 1}
    """
    table = manifest.table if isinstance(manifest, Manifest) else manifest
    if "label" not in table:
        raise InputError("column 'label' is missing; add it, since splits are stratified by label")
    nothing = pd.Series("", index=table.index, dtype="str")
    sources = text(table["source"]).str.strip() if "source" in table else nothing
    groups = text(table["group"]).str.strip() if "group" in table else nothing
    labels = text(table["label"]).str.strip()
    held = dict(hold_out or {})
    if seed < 0:
        raise InputError(f"seed is {seed}; write a whole number, 0 or more")
    _check_request(fractions, held, sources, groups)

    split = np.array([held.get(source) for source in sources], dtype=object)
    if held:
        for name, rows in drawn_for_missing_classes(labels, groups, split, seed).items():
            split[rows] = name
    free = np.array([name is None for name in split])
    if free.any():
        # A group is one unit, and so is each image that has none.
        unit = unit_codes(groups.to_numpy(object), len(table))[free]
        stratum, cells = pd.factorize(pd.MultiIndex.from_arrays([labels[free], sources[free]]))
        names = list(fractions)
        strata = Strata(
            pd.factorize(unit)[0].astype(np.int64),
            stratum.astype(np.int64),
            pd.factorize(cells.get_level_values(0))[0].astype(np.int64),
            np.array(list(fractions.values()), dtype=np.float64),
            names.index("train") if "train" in names else None,
        )
        chosen = assign(strata, np.random.default_rng(seed))
        split[free] = np.array(names, dtype=object)[chosen]
    return table.assign(split=pd.Series(split, index=table.index).astype("str"))


def _check_request(
    fractions: Mapping[str, float],
    held: Mapping[str, str],
    sources: pd.Series,
    groups: pd.Series,
) -> None:
    problems: list[Problem] = []

    def add(where: str, what: str, fix: str) -> None:
        problems.append(Problem(where, what, fix))

    for name, share in fractions.items():
        if not (np.isfinite(share) and share > 0):
            add(f"share of {name!r}", f"{share!r} is not above 0", "leave the split out")
    total = float(sum(fractions.values()))
    if not abs(total - 1) <= 1e-6:
        add("shares", f"they add up to {total:g}", "make them add up to 1")
    for name in [*fractions, *held.values()]:
        if not kind_of(pd.Series([name], dtype="str"))[0]:
            add(f"split {name!r}", "unknown", split_hint(name))
    for source, name in held.items():
        if name in fractions:
            fix = "assign it to a split of its own, such as test-unseen"
            add(f"held-out source {source!r}", f"the split {name!r} has a share as well", fix)
        if name == "train":
            fix = "assign it to val-NAME or test-NAME"
            add(f"held-out source {source!r}", "it is assigned to train", fix)
        if source not in set(sources):
            known = ", ".join(sorted(set(sources) - {""})) or "none"
            add(f"held-out source {source!r}", "there is no such source", f"known: {known}")
    if held:
        target = sources.map(dict(held)).where(sources.isin(list(held)), "the other splits")
        pairs = pd.DataFrame({"group": groups, "to": target})[groups != ""].drop_duplicates()
        for group, found in pairs[pairs["group"].duplicated(keep=False)].groupby("group"):
            to = " and ".join(found["to"].astype(str))
            add(f"group {group!r}", f"it would go to {to}", "hold out all of its sources, or none")
    if problems:
        raise ProblemsError("splits", problems)
