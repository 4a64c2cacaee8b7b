"""Verdict of a study, its name, and annotation counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from preceptor.evaluation.paired_tests import p_floor
from preceptor.evaluation.split_names import kind_of
from preceptor.report.ladder_words import place_sentence
from preceptor.report.sentences import LEVEL, names_of, only_here, qualifying_words, significant
from preceptor.results.domain import Results, StudyResults
from preceptor.results.rows import records
from preceptor.study.plan import Plan, StudyPlan


@dataclass(frozen=True)
class Verdict:
    """Conclusion of a study.

    Args:
        kind: won, ahead, mixed, lost or open.
        headline: Headline of a few words.
        text: One or two sentences.
        place: Sentence on what the place of the Teacher's maps is worth; "" if it is unknown.
    """

    kind: str
    headline: str
    text: str
    place: str = ""

    @property
    def sentences(self) -> str:
        """All sentences."""
        return f"{self.text} {self.place}".strip()


def verdict(results: Results | StudyResults) -> Verdict:
    """Conclusion on the primary sets of all domains, given the number of seeds.

    Of an unfinished study it is the conclusion so far, with the number of finished trainings. With
    a fixed number of seeds the Student has not won before all seeds are compared: a test at an
    earlier time, chosen by its result, would have a larger error than stated.
    """
    progress = _progress(results)
    found = _before_any_answer(results, progress)
    if found is None:
        found = _against_baselines(results)
        done, total = results.progress
        if done < total or results.unscored:
            found = replace(found, text=f"{found.text} So far, {progress}.")
    return replace(found, place=place_sentence(results))


def _progress(results: Results | StudyResults) -> str:
    """Number of finished trainings in words."""
    done, total = results.progress
    progress = f"{done} of {total} trainings are finished"
    if unscored := len(results.unscored):
        have = "have" if unscored > 1 else "has"
        progress += f", and {unscored} of them {have} no scores of the test sets"
    return progress


def _before_any_answer(results: Results | StudyResults, progress: str) -> Verdict | None:
    """Conclusion before every Student is compared with both baselines; None afterwards."""
    family = results.family
    if family.empty or family["mean"].isna().any():
        return Verdict(
            "open",
            "No answer yet",
            f"No Student can be compared with the baselines yet: {progress}.",
        )
    if results.untested:  # a correction for a part of the family would be too weak
        text = (
            f"The Student of {names_of(results.untested)} has not been compared with both "
            f"baselines yet: {progress}."
        )
        return Verdict("open", "No answer yet", text)
    return None


def _against_baselines(results: Results | StudyResults) -> Verdict:
    """Conclusion on the Student and both baselines, which are compared."""
    family = results.family.reset_index(drop=True)
    several = family["domain"].nunique() > 1
    units = [_unit(row, several, family["backbone"].nunique()) for row in records(family)]
    worst = family.groupby(units, sort=False)["mean"].min()
    what = "domain" if several and family["backbone"].nunique() == 1 else "backbone"
    what = "domain and backbone" if several and what == "backbone" else what
    many = f"pairs of {what}" if what == "domain and backbone" else f"{what}s"
    ahead, count, n = int((worst > 0).sum()), len(worst), int(family["n"].min())
    where = f"{ahead} of {count} {many}" if count > 1 else str(worst.index[0])
    if n < 2:
        lead = f"above both baselines for {where}" if ahead else "not above both baselines"
        return Verdict(
            "open",
            "Nothing can be concluded from one seed",
            f"With one seed the Student is {lead}; another seed may reverse this.",
        )
    limit = _limit(n, len(family))
    better, worse = significant(family)
    if len(better) == len(family):
        text = f"It is significantly above both baselines for every {what}"
        if results.seeds is not None and n < results.seeds:
            text += f" after {n} of {results.seeds} seeds; the test needs all of them."
            return Verdict("ahead", "The Student is ahead, but seeds are missing", text)
        headline = "The Student is better than both baselines"
        here = [
            line
            for line in records(family)
            if only_here(line["low"], line["high"], (line["image_low"], line["image_high"]))
        ]
        if here:
            text += (
                f", on these test images: over seeds and images, the intervals of {len(here)} of "
                f"{len(family)} differences contain 0"
            )
            headline += " on these test images"
        return Verdict("won", headline, f"{text}.")
    if ahead == count:
        text = f"It is above both baselines for {f'every {what}' if count > 1 else where}, but "
        text += f"not every difference is significant.{limit}"
        return Verdict("ahead", "The Student is ahead, but not significantly", text)
    if ahead:
        names = names_of([str(name) for name in worst.index[worst > 0]])
        text = f"It is above both baselines for {names} only{_worse(worse, units, count)}.{limit}"
        return Verdict("mixed", f"The Student is ahead for {where}", text)
    text = f"No gain over the stronger baseline was found{f' for any {what}' if count > 1 else ''}"
    if count == 1:
        stronger = records(family.sort_values("mean", kind="stable"))[0]
        if stronger["high"] >= 0:  # of a loss that is shown, `_worse` says more
            text += qualifying_words(stronger, results.relevant_difference)
    text += _worse(worse, units, count)
    return Verdict("lost", "The Student is not better than both baselines", f"{text}.{limit}")


def _worse(worse: pd.DataFrame, units: list[str], count: int) -> str:
    """Clause on the comparisons in which the Student is significantly below a baseline."""
    if worse.empty:
        return ""
    names = dict.fromkeys(units[place] for place in worse.index)
    if count > 1:
        return f"; it is significantly below a baseline for {names_of(names)}"
    which = "both baselines" if len(worse) > 1 else f"“{worse['b'].iloc[0]}”"
    return f"; it is significantly below {which}"


def _unit(row: dict[str, Any], several: bool, backbones: int) -> str:
    """Unit that a verdict counts: backbone, domain, or both."""
    if not several:
        return str(row["backbone"])
    return str(row["domain"]) if backbones == 1 else f"{row['domain']} with {row['backbone']}"


def _limit(n: int, family: int) -> str:
    """Note on a number of seeds that cannot give significance, and the number that can."""
    if family * p_floor(n) <= LEVEL:
        return ""
    enough = (one for one in range(n, 64) if family * p_floor(one) <= LEVEL)
    needed = next(enough, None)
    if needed is None:
        return f" With {n} seeds no difference can be significant after correction."
    return (
        f" With {n} seeds no difference can be significant: {family} comparisons need {needed} "
        "seeds or more after correction."
    )


def study_name(study: StudyPlan) -> str:
    """Name of a study: its domains, or the name of its manifest or of the manifest's folder."""
    if study.has_domains:
        return names_of(study.plans)
    manifest = study.first.protocol.study.manifest
    assert manifest is not None
    generic = manifest.stem.lower() == "manifest"
    folder = manifest.absolute().parent
    if "{seed}" in folder.name:  # one manifest per seed: the name of the collection
        folder = folder.parent if folder.name == "{seed}" else folder
    name = folder.name if generic else manifest.stem
    if generic and name.isdigit():  # one draw of several: 3 alone says nothing
        name = f"{folder.parent.name} {name}"
    return name.replace("{seed}", "").strip("-_ ").replace("_", " ")


def annotation_counts(plan: Plan) -> list[tuple[str, str, str]]:
    """Numbers of annotated images used by a study: name, count, remark."""
    protocol = plan.protocol
    study, workspace = protocol.study, protocol.workspace
    manifest = workspace.manifest
    seed = study.seed_list[0] if study.annotated_per_seed else 0
    annotated, mapped = workspace.drawn(study.annotated, seed), manifest.map_mask
    share = annotated.sum() / max(int(manifest.train_mask.sum()), 1)
    remark = f"{100 * share:.0f} % of the training images"
    if study.draws:
        remark += "; each seed is a new draw, the first is counted"
    elif study.annotated_per_seed:
        remark += "; a new draw for each seed, the first is counted"
    validation = (kind_of(manifest.table["split"]) == "val") & mapped
    used = study.selection == "guided"
    rows = [
        ("Annotated images (A)", f"{annotated.sum():,}", remark),
        (
            "… of these with a human map",
            f"{(annotated & mapped).sum():,}",
            "in the others there was nothing to mark",
        ),
        (
            "All training images (T)",
            f"{manifest.train_mask.sum():,}",
            "with the Teacher's maps; only labels are needed",
        ),
        (
            "Human maps of validation images",
            f"{validation.sum():,}",
            "used to break ties in selection, and therefore counted as annotations"
            if used
            else "reported, not used for selection",
        ),
    ]
    if study.ceiling:
        ceiling = (manifest.train_mask & mapped).sum()
        all_annotated = manifest.annotated_mask[manifest.train_mask].all()
        remark = (
            "all that are available"
            if all_annotated
            else "all that are available; not all training images are annotated, so that more "
            "annotations may gain more than the ceiling shows"
        )
        rows.append(("Human maps of the ceiling", f"{ceiling:,}", remark))
    return rows
