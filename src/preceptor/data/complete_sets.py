"""Evaluation sets that lack a class: without each of them a set has no AUC."""

from __future__ import annotations

from preceptor.data.manifest import Manifest


def lacking_classes(manifest: Manifest, which: str, negatives: str | None = None) -> list[str]:
    """What is wrong with evaluation sets that select or are tested: a line each.

    Args:
        manifest: The table.
        which: `val` for all validation sets, or the name of one evaluation set.
        negatives: A validation set whose images stand in for the classes that others lack; None =
            no set.

    Returns:
        Sentences that name the set, the class that it lacks, and what to do.
    """
    labels = manifest.table["label"].groupby(manifest.table["split"], sort=False)
    present = {str(name): set(part) for name, part in labels}
    sets = manifest.eval_splits("val") if which == "val" else [which]
    if negatives is not None and negatives not in sets:
        return [
            f"validation_negatives: {negatives!r} is not one of the validation sets {sets}; "
            "name one of them"
        ]
    found = []
    for name in sets:
        own = present.get(name, set())
        borrowed = present.get(negatives, set()) if negatives is not None else set()
        missing = [one for one in manifest.classes if one not in own | borrowed]
        if not own or not missing:
            continue
        has = ", ".join(repr(one) for one in sorted(own))
        line = f"{name} has images of {has} alone and none of {', '.join(map(repr, missing))}, "
        if which == "val":
            line += "so that it has no AUC to select by; add such images"
            complete = [
                other for other in sets if other != negatives and not set(missing) - present[other]
            ]
            if complete:
                line += (
                    f", or set validation_negatives: {complete[0]}, which scores it against those "
                    f"of {complete[0]}"
                )
        else:
            line += "so that it has no AUC to test; add such images, or name another primary set"
        found.append(line)
    return found
