"""Tables of docs/evidence.md: one function for each kind of block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import yaml
from evidence_study import CHOSEN, Compared, Study, map_quality, rules, share, stores

from preceptor.evaluation import paired_tests
from preceptor.evaluation.paired_tests import mean_std, paired_difference
from preceptor.evaluation.share_of_the_way import ShareResult
from preceptor.report.cells import mean_std_text, short
from preceptor.runtime.formatting import DASH, number


def main_block(study: Study) -> Iterator[str]:
    """Mean, spread and interval of every line but the variants."""
    for test in study.tests:
        lines = [
            [study.rows[key].title, *(spread(study, key, one, test) for one in study.backbones)]
            for key in study.lines
        ]
        caption = f"AUC, mean ± standard deviation over {study.over} [95 % t-interval of the mean]."
        yield table(f"{named(study, test)}. {caption}", ["", *study.backbones], lines)


def comparisons_block(study: Study) -> Iterator[str]:
    """Student minus each other line."""
    tested = study.results.comparisons
    for test in study.tests:
        primary = test == study.results.primary
        for backbone in study.backbones:
            lines, seeds = [], len(study.seeds)
            for key in study.lines:
                found = study.compare(backbone, "student", key, test)
                if key == "student" or found is None:
                    continue
                pair, title = found[0], study.rows[key].title
                seeds = min(seeds, pair.n)
                line = [title, *difference(found).rsplit(", ", 1), p_text(pair.p)]
                if primary:
                    family = (tested["question"] == "RQ2") & (tested["backbone"] == backbone)
                    adjusted = tested.loc[family & (tested["b"] == title), "p_holm"].to_list()
                    line.append(p_text(adjusted[0]) if adjusted else "")
                lines.append(line)
            caption = f"AUC differences paired by seed [95 % interval]; {study.over}. p: exact, by "
            caption += f"sign flips ({paired_tests.floor_note(seeds)}); "
            caption += "Holm's correction within the tested family." if primary else "descriptive."
            head = ["Student minus", "Difference", "Student above", "p"]
            title = f"{named(study, test)}, {backbone}"
            yield table(f"{title}. {caption}", head + ["p (Holm)"] * primary, lines)


def shares_block(study: Study) -> Iterator[str]:
    """The share of the way, a column a test set and backbone."""
    columns = {f"{test}, {one}": (one, test) for test in study.tests for one in study.backbones}
    lines, reasons = [], dict[str, None]()
    for key in study.rows:
        if key != "student" and key in study.lines:
            continue
        cells = []
        for head, (backbone, test) in columns.items():
            found = share(study, key, backbone, test)
            if found is not None and found.reason:
                reasons[f"- None on {head}: {found.reason}."] = None
            cells.append(percent(found))
        lines.append([short(key), *cells])
    caption = "Share of the way from the set's better baseline to the ceiling [95 % interval]; "
    yield table(f"{caption}{study.over}.", ["", *columns], lines)
    if reasons:
        yield "\n".join(reasons)


def levers_block(study: Study) -> Iterator[str]:
    """Variants minus the study's own Student."""
    sets = [*study.vals, *study.tests]
    for backbone in study.backbones:
        lines = []
        for key in [*study.variants(backbone), "baseline1", "baseline2"]:
            cells = [difference(study.compare(backbone, key, "student", name)) for name in sets]
            words = what_it_sets(study, key)
            gain = number(study.worst_gain(backbone, key), sign=True)
            lines.append([short(key) if words else f"Scale: {short(key)}", words, gain, *cells])
        caption = (
            f"**{backbone}.** AUC minus that of the study's own Student, paired by seed [95 % "
        )
        caption += f"interval], and on how many seeds it is above; {study.over}. Sorted by the "
        caption += "mean on the worst validation set."
        yield table(caption, ["", "What it sets", "Worst validation set", *sets], lines)


def maps_block(study: Study) -> Iterator[str]:
    """Agreement of the guiding maps with human maps, a row for each Teacher's stores."""
    lines = []
    for paths, names in stores(study).items():
        pairs = zip(paths, study.seeds, strict=True)
        found = [one for one in (map_quality(study, *pair) for pair in pairs) if one is not None]
        means = np.mean(found, axis=0) if found else np.full(6, math.nan)
        first = mean_std_text(*mean_std([one[0] for one in found]))
        missing = f" ({len(found)} of {len(paths)} seeds)" if len(found) < len(paths) else ""
        lines.append([", ".join(names), first + missing, *map(number, means[1:])])
    caption = (
        "Correlation with human maps that no Teacher was trained on (training images outside the "
        f"annotated ones): mean over images, then mean ± standard deviation over {study.over}. "
        "Quarters are by the Teacher's score for the image's label; shuffled: the maps laid on "
        "other images of their class."
    )
    head = ["Maps of", "All", "Lowest quarter", "Second", "Third", "Highest quarter", "Shuffled"]
    yield table(caption, head, lines)


def selection_block(study: Study) -> Iterator[str]:
    """What each rule of choosing α ends up with on the test sets."""
    for backbone in study.backbones:
        lines, scored, known = [], 0, 0
        for role, title in CHOSEN.items():
            arms, taken = rules(study, role, backbone)
            every = {
                alpha: [study.aucs(arm, test) for test in study.tests]
                for alpha, arm in arms.items()
            }
            means = pd.DataFrame(
                {
                    alpha: [float(values.mean()) for values in found]
                    for alpha, found in every.items()
                    if all(len(values) == len(study.seeds) for values in found)
                },
                index=study.tests,
            )
            scored, known = scored + means.shape[1], known + len(arms)
            for rule, alpha in taken.items():
                cells = ["not scored"] * len(study.tests)
                if alpha in means:
                    loss = means.max(axis=1) - means[alpha]
                    cells = [f"{number(means[alpha][t])} ({number(loss[t])})" for t in study.tests]
                lines.append([title, rule, f"{alpha:g}", *cells])
            if means.shape[1]:
                best = " / ".join(f"{alpha:g}" for alpha in means.idxmax(axis=1))
                lines.append([title, "oracle", best, *map(number, means.max(axis=1))])
        caption = f"**{backbone}.** Mean AUC of the α that a rule takes (loss against the oracle, "
        caption += f"which takes the best α of each test set by that set itself); {study.over}."
        if scored < known:
            caption += f" Only {scored} of {known} candidates are scored on the test sets, and the "
            caption += "oracle knows these alone; `--score-all` scores the others."
        yield table(caption, ["Line", "Rule", "α", *study.tests], lines)


def table(caption: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table under its caption."""
    rows = [head, ["---"] * len(head), *lines]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return f"{caption}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def named(study: Study, test: str) -> str:
    """A test set, and whether it is the primary one."""
    return f"**{test}**" + (" (primary)" if test == study.results.primary else "")


def spread(study: Study, key: str, backbone: str, test: str) -> str:
    """Mean ± std [interval of the mean] of a line, with the α that was chosen."""
    arm = study.arm(key, backbone)
    values = study.aucs(arm, test)
    if arm is None or values.empty:
        return DASH
    pair = paired_difference(values, np.zeros(len(values)))
    notes = [f"α {arm.alpha:g}"] if key in CHOSEN else []
    notes += [f"{pair.n} of {len(study.seeds)} seeds"] if pair.n < len(study.seeds) else []
    text = f"{mean_std_text(pair.mean, pair.std)} [{number(pair.low)}, {number(pair.high)}]"
    return text + (f" ({', '.join(notes)})" if notes else "")


def difference(found: Compared | None) -> str:
    """Mean [interval], wins of n."""
    if found is None:
        return DASH
    pair, wins = found
    mean, low, high = (number(value, sign=True) for value in (pair.mean, pair.low, pair.high))
    return f"{mean} [{low}, {high}], {wins} of {pair.n}"


def percent(found: ShareResult | None) -> str:
    """A share [interval], or that there is none."""
    if found is None or found.share is None or found.low is None or found.high is None:
        return "none"
    share, low, high = (f"{value:.0%}" for value in (found.share, found.low, found.high))
    text = f"{share} [{low}, {high}]".replace("inf%", "∞")
    return text.replace("%", " %").replace("-", "−")


def p_text(value: float) -> str:
    """A p-value with two significant digits."""
    return f"{value:.2g}" if math.isfinite(value) else DASH


def what_it_sets(study: Study, key: str) -> str:
    """A variant's words as its config has them, on one line; nothing for other lines."""
    variant = study.config.variants.get(key.removeprefix("variant "))
    if variant is None or key in study.lines:
        return ""
    given = variant.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return f"`{text[1:-1]}`"
