"""The numbers and figures of docs/evidence.md, from finished study folders; nothing is trained.

    python benchmarks/evidence.py forged=STUDY_FOLDER tiles=OTHER [--doc FILE] [--score-all]

Prose is written by hand. Numbers stand between `<!-- evidence: KIND STUDY -->` and `<!-- end -->`:
every block whose study is given is filled again, the others stay as they are. Kinds: main,
comparisons, shares, levers, maps, selection; main and levers also draw a figure into `images/`
beside the page. The same studies give the same bytes.

`--score-all` first scores the test sets with every candidate of a choice of α, not only with the
chosen ones, so that `selection` can say what each rule costs; the scores stay in the studies'
stores.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray

from preceptor.config.image_format import ImageFormat
from preceptor.data.rows import MapTargets
from preceptor.errors import InputError, PreceptorError
from preceptor.evaluation import paired_tests
from preceptor.evaluation.bootstrap import ShareResult
from preceptor.evaluation.paired_tests import PairedResult, mean_std, paired_difference
from preceptor.evaluation.split_names import split_kind
from preceptor.execution.perform import perform
from preceptor.maps.store import is_store, read_store
from preceptor.report import figures as draw
from preceptor.report import svg as parts
from preceptor.report.cells import mean_std_text, short
from preceptor.report.figure_style import file_styles
from preceptor.results.comparisons import set_aucs, share_of_way
from preceptor.results.domain import gather
from preceptor.results.rows import set_order
from preceptor.runtime.formatting import DASH, number
from preceptor.runtime.result_folder import is_finished, write_atomically
from preceptor.saliency.agreement import correlation
from preceptor.study.plan import Plan
from preceptor.study.selection import Candidate, choose
from preceptor.study.setting import Setting
from preceptor.study.steps import Arm, Evaluate, Role, Step
from preceptor.study.student_runs import student_run, variant_run
from preceptor.study_folder import reopen

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"
MARK = re.compile(r"<!-- evidence:(.*?)-->|<!-- end -->")
# Lines whose α is chosen on validation.
CHOSEN = {"baseline1": "Baseline 1", "student": "Student", "ceiling": "Ceiling"}
Compared = tuple[PairedResult, int]


class Study:
    """A study as far as it has got, and what the blocks ask of it."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name, self.plan, self.config = name, plan, plan.protocol.study
        self.results = gather(plan)
        sets = set_order(plan)
        self.tests = [name for name in sets if split_kind(name) == "test"]  # the primary one first
        self.vals = [name for name in sets if split_kind(name) == "val"]
        self.rows = {row.key: row for row in self.results.rows}
        self.lines = [key for key, row in self.rows.items() if not row.variant]
        self.backbones, self.seeds = self.config.students, self.config.seed_list
        what = (
            ", each a new draw of all images" if self.config.draws else " on the same test images"
        )
        self.over = f"{len(self.seeds)} seeds{what}"

    def arm(self, key: str, backbone: str) -> Arm | None:
        """The arm behind a line, if there is one."""
        return self.rows[key].arms.get(backbone) if key in self.rows else None

    def aucs(self, arm: Arm | None, name: str) -> pd.Series:
        """AUC of an arm on an evaluation set, by seed."""
        if arm is None:
            return pd.Series(dtype=float)
        return set_aucs(self.results.figures, arm, name).sort_index()

    def compare(self, backbone: str, key: str, other: str, name: str) -> Compared | None:
        """One line minus another on a set, paired by seed, and on how many seeds it is above."""
        a, b = (self.aucs(self.arm(one, backbone), name) for one in (key, other))
        seeds = a.index.intersection(b.index)
        if seeds.empty:
            return None
        return paired_difference(a.loc[seeds], b.loc[seeds]), int(
            (a.loc[seeds] > b.loc[seeds]).sum()
        )

    def worst_gain(self, backbone: str, key: str) -> float:
        """A line minus the Student by what selection looks at: the worst validation set's mean."""
        one, other = (
            pd.DataFrame({name: self.aucs(self.arm(side, backbone), name) for name in self.vals})
            for side in (key, "student")
        )
        seeds = one.index.intersection(other.index)
        return float(one.loc[seeds].mean().min() - other.loc[seeds].mean().min())

    def variants(self, backbone: str) -> list[str]:
        """The keys of variants, the best on the worst validation set first."""
        gains = {key: self.worst_gain(backbone, key) for key in self.rows if key not in self.lines}
        return sorted(gains, key=lambda key: -gains[key] if math.isfinite(gains[key]) else math.inf)


# Numbers that no table of the library has.


def share(study: Study, key: str, backbone: str, name: str) -> ShareResult | None:
    """A line's share of the way on a test set; the baseline is the better one on that set."""
    figures, files = study.results.figures, study.results.files
    found = share_of_way(study.plan, study.rows, figures, files, key, backbone, name)
    return found[1] if found else None


def stores(study: Study) -> dict[tuple[Path | None, ...], list[str]]:
    """The map stores that guide, one a seed, and whose they are: the Student's and variants'."""
    protocol = study.plan.protocol
    teacher, found = study.plan.winner(), dict[tuple[Path | None, ...], list[str]]()
    if teacher is None:
        return {}
    for name in (None, *study.config.variants):
        paths = []
        for seed in study.seeds:
            asked = teacher, study.backbones[0], Setting(0.5), seed
            if name is None:
                steps = student_run(protocol, *asked)
            else:
                steps = variant_run(protocol, name, *asked)
            config = steps[-1].config
            paths.append(config.maps.path if config is not None else None)
        found.setdefault(tuple(paths), []).append(short(f"variant {name}" if name else "student"))
    return found


def map_quality(study: Study, path: Path | None, seed: int) -> NDArray[np.float64] | None:
    """Correlation of a store's maps with human maps of training images outside A.

    Returns:
        (6,) means over images: all, each quarter by the store's score (lowest first), and the
        maps shuffled within their class. None where there is no store or no such image.
    """
    if path is None or not is_store(path):
        return None
    workspace = study.plan.protocol.workspaces.of(seed)
    table, store = workspace.manifest.table, read_store(path, ("map", "score"))
    given = study.plan.protocol.config(study.backbones[0], seed)
    known = workspace.annotated(given) | (table["saliency"] == "").to_numpy()
    place = pd.Series(np.arange(len(store.paths)), index=store.paths).reindex(table["name"])
    chosen = np.flatnonzero(workspace.train_mask & ~known & place.notna().to_numpy())
    if not len(chosen):
        return None
    found = place.to_numpy()[chosen].astype(np.int64)
    targets = MapTargets.human(np.ones(len(chosen), np.float32))
    training = given.training
    form = ImageFormat(store.info.side, store.info.fit, training.in_chans)
    grid = (store.maps.shape[1], store.maps.shape[2])
    rows = workspace.rows(chosen, form, cache=training.cache, targets=targets, grid=grid)
    human = rows.maps_on_grid(np.arange(len(rows)))
    maps = torch.from_numpy(store.maps[found].astype(np.float32))
    moved = np.arange(len(rows))
    for label in np.unique(rows.labels):  # in order, so that only a lone image keeps its own map
        own = np.flatnonzero(rows.labels == label)
        moved[own] = np.roll(own, len(own) // 2)
    values, shuffled = (
        correlation(side, human).values.numpy() for side in (maps, maps[torch.from_numpy(moved)])
    )
    quarters = np.array_split(np.argsort(store.scores[found], kind="stable"), 4)
    parts = [values, *(values[quarter] for quarter in quarters), shuffled]
    return np.array([mean_std(part[np.isfinite(part)]).mean for part in parts])


def rules(study: Study, role: Role, backbone: str) -> tuple[dict[float, Arm], dict[str, float]]:
    """The candidates of a choice of α and what each rule takes, on validation alone.

    `val` takes the highest mean on the first validation set, `worst set` on the worst of all;
    `val_auc` and `guided` are the library's own, see `study.selection`.
    """
    made, winner = study.plan.setting_choice(role, backbone), study.plan.winner()
    if made is None:
        return {}, {}
    teacher, protocol = str(winner) if role == "student" else "", study.plan.protocol
    files = study.results.files
    arms = {row["alpha"]: Arm(role, backbone, row["alpha"], teacher) for row in made.table}
    settings = [Setting(row["alpha"]) for row in made.table]
    candidates = []
    for setting, row in zip(settings, made.table, strict=True):
        members = [member for member in study.plan.members if member.arm == arms[row["alpha"]]]
        tables = [files.validation(protocol, one) for one in sorted(members, key=lambda m: m.seed)]
        scores = [table for table in tables if table is not None]
        candidates.append(Candidate(row["name"], setting, scores, row["agreement"]))
    means = pd.DataFrame(
        [[study.aucs(arm, name).mean() for name in study.vals] for arm in arms.values()],
        columns=study.vals,
    )
    first = "val" if "val" in study.vals else study.vals[0]
    taken = {
        first: settings[int(means[first].argmax())].alpha,
        "worst set": settings[int(means.min(axis=1).argmax())].alpha,
    }
    for rule in ("val_auc", "guided"):
        name = choose(
            candidates, classes=study.results.classes, positive=study.results.positive, rule=rule,
            draws=study.config.draws,
        ).winner  # fmt: skip
        taken[rule] = settings[[one.name for one in candidates].index(name)].alpha
    return arms, taken


def score_all(plan: Plan) -> None:
    """Score the test sets with every finished candidate of a choice of α."""
    protocol, teachers = plan.protocol, ("", str(plan.winner()))
    for member in plan.members:
        arm = member.arm
        if arm.role not in CHOSEN or arm.teacher not in teachers:
            continue
        if is_finished(protocol.run_folder(member.run)):
            work = Evaluate(protocol.config(arm.backbone, member.seed), member.run)
            step = Step(protocol.evaluation_id(member), work, member.run, (member.run,))
            perform(step, protocol.store, protocol.workspaces)


# Blocks: the tables of one kind, and a note where one is needed.


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


# Figures: panels in a grid, a row a backbone, a column a test set.

DrawPanel = Callable[[Study, str, str], parts.Figure | None]


def main_panel(study: Study, backbone: str, test: str) -> parts.Figure | None:
    """A dot a seed and the mean of each line."""
    rows = [study.rows[key] for key in study.lines]
    return draw.dot_plot(replace(study.results, primary=test, rows=rows), backbone)


def levers_panel(study: Study, backbone: str, test: str) -> parts.Figure | None:
    """Variants minus Student with their intervals, in the order of the table."""
    found = {key: study.compare(backbone, key, "student", test) for key in study.variants(backbone)}
    pairs = {key.removeprefix("variant "): one[0] for key, one in found.items() if one is not None}
    if not pairs:
        return None
    bounds = np.array([[0.0, pair.mean, pair.low, pair.high] for pair in pairs.values()])
    marks = parts.ticks(float(np.nanmin(bounds)), float(np.nanmax(bounds)))
    left, right, top, step = parts.LEFT, parts.WIDTH - 18.0, 10.0, 28.0
    bottom = top + step * len(pairs)

    def x(value: float) -> float:
        return left + (value - marks[0]) * (right - left) / (marks[-1] - marks[0])

    body = []
    for mark in marks:
        label = number(mark, parts.digits(marks), sign=mark != 0)
        body.append(parts.line(x(mark), top, x(mark), bottom, "grid" if mark else "zero"))
        body.append(parts.label(x(mark), bottom + 16, label, "tick", "middle"))
    for place, (name, pair) in enumerate(pairs.items()):
        y = top + step * (place + 0.5)
        fitting = name if len(name) <= 20 else f"{name[:19]}…"  # what the margin holds
        body.append(parts.label(left - 10, y + 4, fitting, "name", "end"))
        if math.isfinite(pair.low):
            body.append(parts.line(x(pair.low), y, x(pair.high), y, "mean", "student"))
        body.append(parts.dot(x(pair.mean), y, 4.5, "student", number(pair.mean, sign=True)))
    axis = f"AUC difference on {test}"
    body.append(parts.label((left + right) / 2, bottom + 34, axis, "axis", "middle"))
    return parts.svg(bottom + 42, f"{backbone}: variants minus Student on {test}", body)


def figure(study: Study, title: str, panel: DrawPanel) -> str:
    """The panels as a file of their own, in light colors also where a page is dark."""
    body, y = [], 26.0
    for backbone in study.backbones:
        body.append(parts.label(10, y - 6, backbone, "strong").text)
        highest = 0.0
        for column, test in enumerate(study.tests):
            drawn = panel(study, backbone, test)
            if drawn is None:
                continue
            at = f'x="{column * parts.WIDTH}" y="{y:g}"'
            place = f'{at} width="{parts.WIDTH}" height="{drawn.height:g}" '
            body.append(drawn.markup(place))
            highest = max(highest, drawn.height)
        y += highest + 26
    width, height = parts.WIDTH * len(study.tests), y - 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" '
        f'width="{width}" height="{height:g}" role="img"><title>{title}</title>'
        f"<style>{file_styles()}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>\n'
    )


KINDS: dict[str, Callable[[Study], Iterator[str]]] = {
    "main": main_block, "comparisons": comparisons_block, "shares": shares_block,
    "levers": levers_block, "maps": maps_block, "selection": selection_block,
}  # fmt: skip
FIGURES: dict[str, tuple[str, DrawPanel]] = {
    "main": ("AUC of every seed (dots) and means (bars)", main_panel),
    "levers": ("Variants minus Student: mean and 95 % interval", levers_panel),
}


# How numbers are written.


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


# The page.


def find_blocks(text: str, page: Path) -> list[tuple[str, str, slice]]:
    """Kind, study and place of every block; the place is what stands between its markers.

    Raises:
        InputError: A marker that cannot be read, an unknown kind, or a block without its end.
    """
    found: list[tuple[str, str, slice]] = []
    begun: tuple[str, str, int, str] | None = None
    for mark in MARK.finditer(text):
        where = f"{page}, line {text.count(chr(10), 0, mark.start()) + 1}"
        if mark[1] is None:
            if begun is None:
                raise InputError(f"{where}: an end without a block; remove it")
            found.append((begun[0], begun[1], slice(begun[2], mark.start())))
            begun = None
            continue
        if begun is not None:
            break
        words = mark[1].split()
        if len(words) != 2 or words[0] not in KINDS:
            kinds = ", ".join(KINDS)
            raise InputError(
                f"{where}: unknown block {' '.join(words)!r}; write one of {kinds}, and a study"
            )
        begun = words[0], words[1], mark.end(), where
    if begun is not None:
        raise InputError(f"{begun[3]}: the block has no end; add <!-- end -->")
    return found


def fill(kind: str, study: Study) -> str:
    """What stands in a block."""
    if study.results.figures.empty or "student" not in study.rows:
        return "No Student is chosen yet."
    parts = list(KINDS[kind](study))
    if kind in FIGURES:
        parts.append(f"![{FIGURES[kind][0]}](images/{picture(kind, study.name)})")
    return "\n\n".join(parts)


def picture(kind: str, name: str) -> str:
    """The file of a figure."""
    return f"evidence-{name}-{kind}.svg"


def update(page: Path, given: Sequence[str], *, everything: bool = False) -> list[Path]:
    """Fill the page and draw its figures; nothing is written unless all of it can be.

    Args:
        page: Markdown with markers.
        given: NAME=STUDY_FOLDER.
        everything: Score the test sets with all candidates first.

    Returns:
        The files written.

    Raises:
        InputError: The page or a study cannot be used, or a study has no block.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page}: {error.strerror}") from error
    blocks = find_blocks(text, page)
    studies: dict[str, Study] = {}
    for one in given:
        name, _, folder = one.partition("=")
        if not folder or name in studies:
            raise InputError(f"{one}: write NAME=STUDY_FOLDER, each name once")
        if name not in {study for _, study, _ in blocks}:
            raise InputError(f"{one}: {page} has no block of a study {name!r}")
        plan = reopen(folder).first
        if everything:
            score_all(plan)
        studies[name] = Study(name, plan)
    written: dict[Path, str] = {}
    for kind, name, place in reversed(blocks):
        if name in studies:
            body = fill(kind, studies[name])
            text = f"{text[: place.start]}\n\n{body}\n\n{text[place.stop :]}"
            if picture(kind, name) in body:
                drawn = figure(studies[name], *FIGURES[kind])
                written[page.parent / "images" / picture(kind, name)] = drawn
    for path, content in (written | {page: text}).items():
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)
    return [*written, page]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="+", metavar="NAME=STUDY_FOLDER")
    parser.add_argument("--doc", type=Path, default=PAGE, help="the page (%(default)s)")
    parser.add_argument("--score-all", action="store_true", help="score all candidates first")
    given = parser.parse_args(arguments)
    try:
        for path in update(given.doc, given.studies, everything=given.score_all):
            print(path)
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
