"""Evaluation sets without all classes, for which the AUC is undefined."""

from __future__ import annotations

from preceptor.data.manifest import Manifest


def missing_classes(manifest: Manifest, negatives: str | None = None) -> dict[str, list[str]]:
    """Classes missing in each validation and test set; complete sets are omitted.

    Without images of a class, its AUC is undefined. The usual case is a held-out attack type, whose
    images are all positive.

    Args:
        manifest: Manifest.
        negatives: Validation set whose images are used for the classes that other validation sets
            lack; None = no set.

    Example:
        >>> import pandas as pd
        >>> from pathlib import Path
        >>> splits, labels = ["train", "train", "val-noise"], ["real", "fake", "fake"]
        >>> table = pd.DataFrame({"split": splits, "label": labels})
        >>> missing_classes(Manifest(table, Path()))
        {'val-noise': ['real']}
    """
    there = manifest.table.groupby("split", sort=False)["label"].agg(set)
    validation = manifest.eval_splits("val")
    found = {}
    for name in [*validation, *manifest.eval_splits("test")]:
        present = there[name]
        if negatives is not None and name in validation:
            present = present | there[negatives]
        missing = [one for one in manifest.classes if one not in present]
        if missing:
            found[name] = missing
    return found


def missing_class_notes(manifest: Manifest) -> list[str]:
    """Note for each validation and test set that lacks a class, with consequence and remedy."""
    tests, notes = manifest.eval_splits("test"), []
    lacking = missing_classes(manifest)
    complete = [name for name in manifest.eval_splits("val") if name not in lacking]
    auc = "no AUC" if len(manifest.classes) == 2 else "no AUC of it"
    for name, missing in lacking.items():
        classes = ", ".join(missing)
        lack = auc if name in tests else f"{auc} and cannot select"
        note = (
            f"{name}: there is no image of class {classes}, so it has {lack}; move images of "
            f"{classes} into it, or make it with `preceptor data split --hold-out`"
        )
        if name not in tests and complete:
            note += (
                f", or set `validation_negatives: {complete[0]}` in the study file, which scores "
                f"it against the images of {classes} in {complete[0]}"
            )
        notes.append(note)
    return notes


def selection_problems(manifest: Manifest, negatives: str | None) -> list[str]:
    """Problems of the validation sets for model selection, one line each.

    Args:
        manifest: Manifest.
        negatives: Validation set with the missing classes, see `missing_classes`; a name that is
            not a validation set is a problem as well.
    """
    sets = manifest.eval_splits("val")
    if negatives is not None and negatives not in sets:
        return [
            f"validation_negatives: {negatives!r} is not one of the validation sets {sets}; "
            "name one of them"
        ]
    lacking = missing_classes(manifest, negatives)
    whole = missing_classes(manifest)
    found = []
    for name in sets:
        if name not in lacking:
            continue
        classes = ", ".join(lacking[name])
        line = (
            f"{name}: there is no image of class {classes}, so it has no AUC to select by; move "
            f"images of {classes} into it"
        )
        others = [other for other in sets if other not in whole]
        if others:
            line += (
                f", or set validation_negatives: {others[0]}, which scores it against the images "
                f"of {classes} in {others[0]}"
            )
        found.append(line)
    return found


def primary_problems(manifest: Manifest, primary: str) -> list[str]:
    """Problem of a test set as the primary one, or an empty list."""
    missing = missing_classes(manifest).get(primary)
    if not missing:
        return []
    return [
        f"primary: {primary} has no image of class {', '.join(missing)}, so it has no AUC to test; "
        "add such images, or name another test set"
    ]
