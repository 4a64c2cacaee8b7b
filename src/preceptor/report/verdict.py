"""What the page says in words: the verdict, what the maps are worth, what people annotated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from preceptor.evaluation.paired_tests import p_floor
from preceptor.evaluation.split_names import kind_of
from preceptor.report.questions import LEVEL
from preceptor.report.sentences import shuffled_maps_words
from preceptor.results.domain import Results
from preceptor.results.rows import records
from preceptor.results.study import StudyResults
from preceptor.runtime.formatting import number
from preceptor.study.plan import Plan
from preceptor.study.study_plan import StudyPlan


@dataclass(frozen=True)
class Verdict:
    """Whether the Student won, plainly.

    Args:
        kind: won, ahead, mixed, lost or open.
        headline: A few words.
        text: One or two sentences.
    """

    kind: str
    headline: str
    text: str


def verdict(results: Results | StudyResults) -> Verdict:
    """What may be concluded from this many seeds on the primary set, of every domain at hand."""
    family = results.family
    done, total = results.progress
    progress = f"{done} of {total} trainings are finished"
    if family.empty or family["mean"].isna().any():
        return Verdict(
            "open", "No answer yet",
            f"No Student can be set against the baselines yet: {progress}.",
        )  # fmt: skip
    several = family["domain"].nunique() > 1
    units = [_unit(row, several, family["backbone"].nunique()) for row in records(family)]
    worst = family.groupby(units, sort=False)["mean"].min()
    whole = family.groupby(units, sort=False)["b"].nunique() == 2
    what = "domain" if several and family["backbone"].nunique() == 1 else "backbone"
    what = "domain and backbone" if several and what == "backbone" else what
    ahead, count, n = int((worst[whole] > 0).sum()), len(worst), int(family["n"].min())
    if not whole.all():
        return Verdict("open", "No answer yet", f"A baseline is missing for some: {progress}.")
    where = f"{ahead} of {count} {what}s" if count > 1 else str(worst.index[0])
    if n < 2:
        lead = f"ahead of both baselines for {where}" if ahead else "not ahead of both baselines"
        return Verdict(
            "open",
            "Nothing can be concluded from one seed",
            f"With one seed the Student is {lead}; another seed may well turn that round.",
        )
    limit = _limit(n, len(family))
    if ahead == count and ((family["p_holm"] <= LEVEL) & (family["mean"] > 0)).all():
        text = f"It is ahead of both baselines for every {what}, and chance does not explain it."
        return Verdict("won", "The Student won", text)
    if ahead == count:
        text = f"It is ahead of both baselines for {f'every {what}' if count > 1 else where}, but "
        text += f"not every difference is beyond chance.{limit}"
        return Verdict("ahead", "The Student is ahead, and it is not proven", text)
    if ahead:
        names = names_of([str(name) for name in worst.index[worst > 0]])
        text = f"It is ahead of both baselines for {names} only.{limit}"
        return Verdict("mixed", f"The Student is ahead for {where}", text)
    text = f"No gain over the stronger baseline was found{f' for any {what}' if count > 1 else ''}."
    return Verdict("lost", "The Student did not win", text + limit)


def _unit(row: dict[str, Any], several: bool, backbones: int) -> str:
    """What a verdict counts: backbones, domains, or both."""
    if not several:
        return str(row["backbone"])
    return str(row["domain"]) if backbones == 1 else f"{row['domain']} with {row['backbone']}"


def _limit(n: int, family: int) -> str:
    """What this many seeds cannot show at all, and how many could."""
    if family * p_floor(n) <= LEVEL:
        return ""
    needed = next(seeds for seeds in range(n, 64) if family * p_floor(seeds) <= LEVEL)
    return (
        f" {n} seeds cannot prove any difference: {family} comparisons corrected together need "
        f"{needed} seeds or more."
    )


def controls_sentence(results: Results) -> str:
    """The Student's gain over the shuffled control, and what it supports."""
    compared = results.comparisons
    if compared.empty:
        return ""
    here = compared[compared["key_b"] == "shuffled"].dropna(subset=["mean"])
    if here.empty:
        return ""
    gain = number(here["mean"].mean(), sign=True)
    alphas = ", ".join(f"{alpha:g}" for alpha in here["alpha_b"].unique())
    meaning = shuffled_maps_words(here, results.controls_alpha)
    return (
        f"Against the same maps shuffled among images (α {alphas}) the Student's AUC differs by "
        f"{gain}: {meaning}."
    )


def study_name(study: StudyPlan) -> str:
    """What the study is called: its domains, or its manifest's name, or its folder's."""
    if study.has_domains:
        return names_of(study.plans)
    manifest = study.first.protocol.study.manifest
    assert manifest is not None
    generic = manifest.stem.lower() == "manifest"
    folder = manifest.absolute().parent
    if "{seed}" in folder.name:  # a draw a seed: what they are draws of
        folder = folder.parent if folder.name == "{seed}" else folder
    name = folder.name if generic else manifest.stem
    return name.replace("{seed}", "").strip("-_ ").replace("_", " ")


def annotation_counts(plan: Plan) -> list[tuple[str, str, str]]:
    """What people had to annotate: name, count, remark."""
    protocol = plan.protocol
    study, workspace = protocol.study, protocol.workspace
    manifest = workspace.manifest
    config = protocol.config(study.students[0], study.seed_list[0])
    annotated, mapped = workspace.annotated(config), manifest.map_mask
    share = annotated.sum() / max(int(manifest.train_mask.sum()), 1)
    remark = f"{100 * share:.0f} % of the training images"
    if study.draws:
        remark += "; each seed is a new draw, the first is counted"
    elif study.annotated_per_seed:
        remark += "; drawn anew for each seed, the first is counted"
    validation = (kind_of(manifest.table["split"]) == "val") & mapped
    used = study.selection == "guided"
    rows = [
        ("Annotated images (A)", f"{annotated.sum():,}", remark),
        (
            "… of these with a human map", f"{(annotated & mapped).sum():,}",
            "the others were examined and have nothing to point at",
        ),
        (
            "All training images (T)", f"{manifest.train_mask.sum():,}",
            "marked by the Teacher; they need labels alone",
        ),
        (
            "Human maps of validation images", f"{validation.sum():,}",
            "used to break ties in selection, so they count as annotations"
            if used
            else "reported, and not used to choose",
        ),
    ]  # fmt: skip
    if study.ceiling:
        ceiling = (manifest.train_mask & mapped).sum()
        rows.append(("Human maps of the ceiling", f"{ceiling:,}", "all there are; a bound"))
    return rows


def names_of(names: Iterable[str]) -> str:
    """Names as a sentence takes them.

    Example:
        >>> names_of(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
