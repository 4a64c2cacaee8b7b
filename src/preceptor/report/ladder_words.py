"""Ladder of a study in words and as a table: above all, what the place of the maps is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from preceptor.evaluation.paired_tests import PairedResult
from preceptor.report.cells import Cell, Line, Table, mean_std_text, short
from preceptor.report.sentences import (
    interval_words,
    margin_words,
    names_of,
    only_here,
    seeds_of,
    signed,
)
from preceptor.results.domain import Results, StudyResults
from preceptor.results.ladder import ControlGain, Ladder, Rung, RungName
from preceptor.runtime.text import DASH, interval, number, p_value

ControlsAlpha = Literal["own", "student"]

RUNGS: dict[RungName, str] = {
    "none": "No maps",
    "any": "Any map",
    "teacher": "Teacher's maps",
    "human": "All human maps",
}
"""Names of the rungs, from the lowest to the highest."""

INSIDE: dict[RungName, str] = RUNGS | {
    "none": "no maps",
    "any": "any map",
    "human": "all human maps",
}
"""Names of the rungs inside a sentence."""

_WITH: dict[RungName, str] = {
    "none": "without maps",
    "any": "with any map",
    "teacher": "with the Teacher's maps",
    "human": "with all human maps",
}


def place_sentence(found: Results | StudyResults) -> str:
    """Sentence on the gain of the Teacher's maps over any map; "" without it."""
    parts = [found] if isinstance(found, Results) else [*found.by_domain.values()]
    several = [ladder for one in parts for ladder in one.ladders_on(one.primary)]
    clause = place_clause(several, parts[0].controls_alpha, parts[0].relevant_difference)
    return f"{clause[:1].upper()}{clause[1:]}." if clause else ""


def place_clause(found: Iterable[Ladder], controls_alpha: ControlsAlpha, margin: float) -> str:
    """Clause on the gain of the Teacher's maps over any map; "" without it.

    Args:
        found: Ladders on the primary set, of every backbone (and domain).
        controls_alpha: α of the controls, see `StudyConfig`.
        margin: Smallest relevant difference in AUC.
    """
    known = [(ladder, place) for ladder in found if (place := _place(ladder)) is not None]
    if not known:
        return ""
    lead = (
        "what the place of the maps is worth, the AUC with the Teacher's maps minus the AUC with "
        "any map"
    )
    if len(known) > 1:
        ends = dict.fromkeys(signed(end(place.mean for _, place in known)) for end in (min, max))
        return (
            f"{lead}, is {' to '.join(ends)} in {len(known)} comparisons: "
            f"{_several_words([one for one, _ in known], controls_alpha)}"
        )
    ((ladder, place),) = known
    rung = ladder.rung("any")
    assert rung is not None
    sure = "one seed has no interval"
    if place.n > 1:
        sure = f"95 % interval {interval_words(place.low, place.high)} over {seeds_of(place.n)}"
    return (
        f"{lead} ({short(rung.key)}, {rung.setting}), is {signed(place.mean)} ({sure})"
        f"{_smallest_words(ladder)}: {_one_words(ladder, place, controls_alpha, margin)}"
    )


def rung_sentences(found: Iterable[Ladder]) -> list[str]:
    """AUC of every rung, one sentence per ladder."""
    said = []
    for ladder in found:
        values = []
        for rung in ladder.rungs:
            which = f" ({short(rung.key)}, {rung.setting})" if rung.name == "any" else ""
            values.append(f"{number(rung.mean)} {_WITH[rung.name]}{which}")
        said.append(f"{ladder.backbone}: the AUC on {ladder.set} is {names_of(values)}.")
    return said


def any_map_words(found: Iterable[Ladder]) -> str:
    """Definition of any map, and the control that was selected for each backbone."""
    known = [(ladder.backbone, ladder.any_map) for ladder in found if ladder.any_map is not None]
    among = dict.fromkeys(key for _, one in known for key in one.among)
    if not among:
        return ""
    chosen = names_of(f"“{short(one.control)}” for {backbone}" for backbone, one in known)
    which = names_of(f"“{short(key)}”" for key in among)
    best = (
        f"the best of {which}, selected on validation by the rule that selects α: {chosen}"
        if len(among) > 1
        else which
    )
    return (
        "Any map is a control whose maps have no information on where the evidence lies in their "
        f"image: {best}. The gain of the Teacher's maps over any map is what the place is worth. "
        "A control that is best on validation need not be best on other sets: the gain is "
        "considered shown if the 95 % intervals over all of these controls are above 0."
    )


def agreement_words(found: Iterable[Ladder]) -> str:
    """Agreement of the models' maps with human maps on each rung; "" without human maps."""
    said = []
    for ladder in found:
        known = [
            f"{number(rung.agreement, 2)} {_WITH[rung.name]}"
            for rung in ladder.rungs
            if np.isfinite(rung.agreement)
        ]
        if known:
            said.append(f"{ladder.backbone}: {names_of(known)}")
    if not said:
        return ""
    return (
        "Correlation of the models' maps with human maps of validation images, mean over seeds: "
        f"{'; '.join(said)}. If it is high without maps, the model uses the marked regions without "
        "guidance, and their place is little new information."
    )


def rung_table(found: Sequence[Ladder]) -> Table | None:
    """Table of ladders on one evaluation set: a row per rung, with its gain over the one below."""
    if not found:
        return None
    several = len(found) > 1
    lines = [
        Line(_heading(ladder, rung, several), _cells(rung), rung.name == "teacher")
        for ladder in found
        for rung in ladder.rungs
    ]
    columns = [
        "AUC",
        "95 % interval of the AUC",
        "Gain over the previous row",
        "95 % interval of the gain",
        "p",
    ]
    caption = (
        f"{found[0].set}: AUC by the maps that guide, mean ± standard deviation over seeds; gains "
        "are paired by seed, p is not corrected."
    )
    return Table(caption, "Maps", columns, lines)


def _heading(ladder: Ladder, rung: Rung, several: bool) -> str:
    which = f": {short(rung.key)}" if rung.name == "any" else ""
    if several:
        return f"{ladder.backbone}: {INSIDE[rung.name]}{which}"
    return f"{RUNGS[rung.name]}{which}"


def _cells(rung: Rung) -> list[Cell]:
    plain = rung.name == "none" and not rung.setting.guidance
    level = interval(rung.low, rung.high).replace("+", "")
    own = [
        Cell(mean_std_text(rung.mean, rung.std), "" if plain else str(rung.setting)),
        Cell(level),
    ]
    if rung.gain is None:
        return [*own, Cell(), Cell(), Cell()]
    gain = rung.gain.paired
    note = f"{gain.n} of {rung.n} seeds" if gain.n != rung.n else ""
    return [
        *own,
        Cell(number(gain.mean, sign=True), note),
        Cell(interval(gain.low, gain.high)),
        Cell(p_value(gain.p), f"floor {p_value(gain.p_floor)}"),
    ]


def place_figures(paired: PairedResult) -> str:
    """Gain with its interval, if it has one."""
    spread = interval(paired.low, paired.high)
    return f"{number(paired.mean, sign=True)}{f' ({spread})' if spread != DASH else ''}"


def other_smallest(ladder: Ladder) -> ControlGain | None:
    """Smallest gain over a control, if this control is not the one that stands for any map."""
    found = ladder.smallest
    if found is None or ladder.any_map is None or found.control == ladder.any_map.control:
        return None
    return found


def _smallest_words(ladder: Ladder) -> str:
    found = other_smallest(ladder)
    if found is None:
        return ""
    return f"; over another control ({short(found.control)}) it is {place_figures(found.paired)}"


def _place(ladder: Ladder) -> PairedResult | None:
    place = ladder.place
    return place if place is not None and np.isfinite(place.mean) else None


def _one_words(
    ladder: Ladder, place: PairedResult, controls_alpha: ControlsAlpha, margin: float
) -> str:
    """Conclusion from one gain of the Teacher's maps over any map."""
    if controls_alpha == "student":
        return _NOT_ITS_OWN
    if interval(place.low, place.high) == DASH:
        return "one seed supports no conclusion"
    if place.low > 0 and ladder.above_all_controls:
        words = "the place that the Teacher's maps show increases the AUC"
        if only_here(place.low, place.high, ladder.place_images):
            words += (
                "; over seeds and images the interval contains 0, so that this is not shown for "
                "other test images"
            )
        return words
    if place.low > 0:
        return "a gain from the place over every control is not shown"
    if place.high < 0:
        return "maps that do not show the place guide better"
    words = margin_words(place.low, place.high, margin, ladder.place_images)
    return f"a gain from the place is not shown{f' ({words})' if words else ''}"


def _several_words(found: Sequence[Ladder], controls_alpha: ControlsAlpha) -> str:
    """Conclusion from several gains of the Teacher's maps over any map."""
    places = [place for ladder in found if (place := _place(ladder)) is not None]
    if controls_alpha == "student":
        return _NOT_ITS_OWN
    if all(interval(place.low, place.high) == DASH for place in places):
        return "one seed supports no conclusion"
    above = sum(ladder.above_all_controls for ladder in found)
    below = sum(place.high < 0 for place in places)
    gains = [ladder for ladder in found if (place := _place(ladder)) is not None and place.low > 0]
    some = sum(not ladder.above_all_controls for ladder in gains)
    over_any = f"over any map but not over every control in {some}, " if some else ""
    return (
        "by uncorrected 95 % intervals, the place that the Teacher's maps show increases the AUC "
        f"over every control in {above}, {over_any}decreases it in {below}, and makes no "
        f"distinguishable difference in {len(places) - above - below - some}"
    )


_NOT_ITS_OWN = (
    "the controls were trained at the Student's α instead of their own, so that this does not "
    "measure what the place is worth"
)
