"""Tables and figures of results in the documentation, from the archives in benchmarks/evidence.

    python docs/evidence_tables.py

Writes the blocks between `<!-- evidence: NAME -->` and `<!-- end -->` of all pages again, and the
figures. A test compares the blocks with the archives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from preceptor.metrics.auc import auc_weighted
from preceptor.metrics.paired_tests import holm, paired_difference
from preceptor.metrics.scores import ALL_SOURCES, positive_log_odds, set_auc, validation_rows
from preceptor.metrics.split_names import kind_or_none
from preceptor.results.comparisons import LEVEL, shown
from preceptor.results.ladder import ANY_MAP, map_agreement
from preceptor.results.record import identity_of, read_archive
from preceptor.results.tables import CSV_FILES, read_table
from preceptor.utils.text import DASH, interval, number, p_value

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "benchmarks" / "evidence"
IMAGES = ROOT / "docs" / "images"
BLOCK = re.compile(r"(<!-- evidence: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = (
    "README.md",
    "benchmarks/evidence/README.md",
    "docs/evidence.md",
    "docs/explanation/when-marks-help.md",
    "docs/explanation/which-guidance.md",
    "docs/howto/how-many-marks.md",
)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """Study with an archive.

    Args:
        folder: Folder in benchmarks/evidence.
        title: Name of the data; ¹ = with a planted shortcut.
        primary: Evaluation set of the tests.
        seed: What a seed is.
        marks: Annotated training images.
        places: Row of its marks in other/marks.csv.
        frozen: Commit in which the study file was frozen.
    """

    folder: str
    title: str
    primary: str
    seed: str
    marks: str
    places: str
    frozen: str


SPOTS, MRI = "small forged regions", "brain MRI"
STUDIES = (
    Study("spots_evidence", "Small forged regions ¹", "test-seen", "draw", "60 of 6,000", SPOTS,
          "1920acf"),
    Study("spots_densenet", "Small forged regions ¹, DenseNet", "test-seen", "draw", "60 of 6,000",
          SPOTS, "6623e334"),
    Study("brain_mri_planted", "Brain MRI with a stamp ¹", "test-unseen", "seed", "12 %",
          "brain MRI with a planted stamp", "84396a6"),
    Study("circuit_boards", "Circuit boards", "test-unseen", "seed", "120 of 1,245",
          "circuit boards", "d7e1103"),
    Study("forged_evidence", "Forged photographs ¹", "test-seen", "draw", "100 of 1,500",
          "forged photographs", "65c298f2"),
    Study("road_cracks", "Road cracks", "test-unseen", "seed", "12 %", "road cracks", "c092e15"),
    Study("magnetic_tile", "Magnetic tiles", "test-unseen", "seed", "120 of 688",
          "magnetic tiles", "98d03e6"),
    Study("brain_mri", "Brain MRI of other hospitals", "test-unseen", "seed", "12 %", MRI,
          "a99feb68"),
    Study("brain_mri_imagenet", "Brain MRI, ImageNet weights", "test-unseen", "seed", "12 %", MRI,
          "653319a4"),
)  # fmt: skip
FEW = (
    Study("brain_mri_few", "Brain MRI with a stamp ¹", "test-unseen", "seed", "20 of 793", "",
          "f9e727a1"),
    Study("road_cracks_few", "Road cracks with a stamp ¹", "test-unseen", "seed", "20 of 1,400", "",
          "f9e727a1"),
    Study("spots_few", "Small forged regions ¹", "test-seen", "draw", "20 of 6,000", "",
          "9187e177"),
)  # fmt: skip
"""Studies of 20 examined images with all controls."""
AGAIN = Study(
    "brain_mri_again", "Brain MRI with a stamp ¹, again", "test-unseen", "seed", "20 of 793", "",
    "4c631dde"
)  # fmt: skip
"""New seeds of the first one, with both baselines and the control that it left open."""
SIXTY = Study(
    "brain_mri_sixty", "Brain MRI with a stamp ¹, 60 marks", "test-unseen", "seed", "60 of 793", "",
    "9848e7b0"
)  # fmt: skip
"""Ten of these seeds with 60 examined images, and with the control mixed and the ceiling."""
FEW_MARKS = (FEW[0], AGAIN, SIXTY, *FEW[1:])
ROADS = Study(
    "road_cracks_planted", "Road cracks with a stamp ¹", "test-unseen", "seed", "12 %", "",
    "18a34755"
)  # fmt: skip
"""Frozen before the studies of 20 examined images; in no pooled group."""
BUDGETS = {"brain_mri_budget": "test-unseen", "spots_budget": "test-seen"}
"""Primary set of the studies of the number of annotated images."""


@dataclass(frozen=True)
class Difference:
    """Mean difference of AUCs with its 95 % interval and its exact p."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def shown(self) -> bool:
        """Whether the difference is shown to be above 0."""
        return shown(self.low, self.high, self.p) > 0

    @property
    def text(self) -> str:
        """Mean and interval; bold if it is shown to be above 0."""
        text = f"{number(self.mean, sign=True)} ({interval(self.low, self.high)})"
        return f"**{text}**" if self.shown else text

    @property
    def with_p(self) -> str:
        """Mean, interval and p."""
        return f"{self.text}, p\u00a0{p_value(self.p)}"


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Difference over the seeds of both sides."""
    seeds = sorted(set(a) & set(b))
    found = paired_difference([a[one] for one in seeds], [b[one] for one in seeds])
    return Difference(found.mean, found.low, found.high, found.p)


@cache
def tables(folder: str) -> Any:
    """Tables of an archive: table, comparisons, budget and runs."""
    names = ("table", "comparisons", "budget", "runs")
    files = {name: EVIDENCE / folder / f"{name}.csv" for name in names}
    return SimpleNamespace(
        **{one: read_table(files[one], CSV_FILES[f"{one}.csv"]) for one in names}
    )


@cache
def aucs(folder: str) -> pd.DataFrame:
    """AUC of every run of an archive on every evaluation set as a whole, from its scores."""
    rows = []
    for record in read_archive(EVIDENCE / folder):
        setup, known = record.setup, dict[str, list[dict[str, Any]]]()
        classes, positive = setup.classes, setup.positive
        for member in record.members:
            if member.run not in known:
                sides = zip(record.scores(member), (setup.negatives, None), strict=True)
                parts = [
                    (name, validation_rows(table, name, classes, negatives))
                    for table, negatives in sides
                    if table is not None
                    for name in map(str, table["split"].unique())
                ]
                known[member.run] = [
                    {"set": name, "source": ALL_SOURCES, "auc": set_auc(part, classes, positive)}
                    for name, part in parts
                ]
            rows += [identity_of(member) | row for row in known[member.run]]
    return pd.DataFrame(rows)


def compared(folder: str, key: str, p: str = "p") -> Difference:
    """Student minus another row of a study."""
    rows = tables(folder).comparisons
    (row,) = rows[(rows["key_a"] == "student") & (rows["key_b"] == key) & (rows["question"] != "RQ3")].to_dict("records")  # fmt: skip  # noqa: E501
    return Difference(row["mean"], row["low"], row["high"], row[p])


def controls_of(folder: str) -> dict[str, Difference]:
    """Student minus each control whose maps do not know the place."""
    keys = set(tables(folder).comparisons["key_b"])
    return {key: compared(folder, key) for key in ANY_MAP if key in keys}


def mean_auc(study: Study, key: str, folder: str | None = None) -> float:
    """Mean AUC of a row on the primary set; NaN if the study lacks the row."""
    rows = tables(folder or study.folder).table
    found = rows[(rows["key"] == key) & (rows["set"] == study.primary) & (rows["source"] == "")][
        "mean"
    ]
    return float(found.iloc[0]) if len(found) else math.nan


def repeats(study: Study) -> str:
    """Number of draws or seeds."""
    return f"{int(tables(study.folder).table['n'].max())} {study.seed}s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Result:
    """A row of the table of all studies.

    Args:
        title: Name of the data.
        repeats: Number of draws or seeds.
        marked: Examined training images.
        means: AUC of each row of the study; NaN if the study lacks it.
        gain: Student minus the better baseline, Holm's correction included.
        place: Student minus the strongest control.
    """

    title: str
    repeats: str
    marked: str
    means: Mapping[str, float]
    gain: Difference
    place: Difference

    @property
    def way(self) -> float:
        """Share of the way from the better baseline to the ceiling; NaN if that is below 0.02."""
        better = max(self.means["baseline1"], self.means["baseline2"])
        room = self.means["ceiling"] - better
        return (self.means["student"] - better) / room if room >= 0.02 else math.nan


def archived(study: Study, folder: str = "", note: str = "") -> Result:
    """Result of a study, or of another reading of it, with a note."""
    own = folder or study.folder
    means = {key: mean_auc(study, key, own) for key in ("baseline1", "baseline2", "student", "ceiling")}  # fmt: skip  # noqa: E501
    means["control"] = max(mean_auc(study, key, own) for key in controls_of(own))
    title = f"{study.title} {note}".strip()
    keys = ["baseline1", "baseline2", *controls_of(own)]
    found = dict(zip(keys, holm_of([compared(own, key) for key in keys]), strict=True))
    baselines = [found.pop(key) for key in ("baseline1", "baseline2")]
    gain, place = (min(some, key=lambda one: one.mean) for some in (baselines, found.values()))
    return Result(title, repeats(study), study.marks, means, gain, place)


Rows = Mapping[str, Mapping[int, float]]
"""AUC of each row of a study by seed."""


def over_all(rows: Rows) -> dict[str, Difference]:
    """Student minus each baseline and control; p is corrected for all of them."""
    keys = [key for key in ("baseline1", "baseline2", "mixed", *ANY_MAP) if key in rows]
    found = holm_of([paired(rows["student"], rows[key]) for key in keys])
    return dict(zip(keys, found, strict=True))


def holm_of(differences: Sequence[Difference]) -> list[Difference]:
    """Differences that are tested together: p corrected for all of them."""
    ps = holm([one.p for one in differences])
    return [replace(one, p=p) for one, p in zip(differences, ps, strict=True)]


def corrected(title: str, marked: str, repeats: str, rows: Rows) -> Result:
    """Result of a study with all controls, mixed among them."""
    found = over_all(rows)
    baselines = [found.pop(key) for key in ("baseline1", "baseline2")]
    gain, place = (min(some, key=lambda one: one.mean) for some in (baselines, found.values()))
    means = {key: float(np.mean([*own.values()])) for key, own in rows.items()}
    control = {"control": max(means[key] for key in found)}
    means = {"ceiling": math.nan} | {k: mean for k, mean in means.items() if k not in found}
    means |= control
    return Result(title, repeats, marked, means, gain, place)


FEW_ROLES = (
    "baseline2", "baseline1", "mixed", "centre", "shuffled", "shuffled_human", "student", "ceiling",
)  # fmt: skip


def rows_of(study: Study) -> Rows:
    """AUC of each row that a study of few examined images has, by seed."""
    found = {role: of_runs(study.folder, role) for role in FEW_ROLES}
    return {role: own for role, own in found.items() if own}


def few() -> str:
    """Each row of the studies of few examined images, and the Student minus it."""
    titles = (
        "no maps", "marks alone", "mixed", "centered", "shuffled", "human maps, shuffled",
        "Student", "ceiling",
    )  # fmt: skip
    lines = []
    for study in FEW_MARKS:
        rows = rows_of(study)
        aucs = {key: number(float(np.mean([*own.values()]))) for key, own in rows.items()}
        means = [aucs.get(key, DASH) for key in FEW_ROLES]
        differences = over_all(rows)
        cells = [differences[key].text if key in differences else DASH for key in FEW_ROLES]
        lines += [[f"{study.title}, {repeats(study)}", *means], ["Student minus it", *cells]]
    return table(["data", *titles], lines)


@cache
def results() -> tuple[Result, ...]:
    """All studies: few marks first."""
    by_folder = {study.folder: study for study in STUDIES}
    return (
        *(study.result for study in decoy_studies()),
        DecoyStudy(3000, 60, _curve("small_resnet")[3000], "Moving decoys ¹, ResNet").result,
        *(corrected(one.title, one.marks, repeats(one), rows_of(one)) for one in FEW_MARKS),
        archived(by_folder["brain_mri_planted"], "brain_mri_planted_mapper", "²"),
        archived(ROADS),
        *(archived(study) for study in STUDIES),
    )


def summary() -> str:
    """Table of all studies: AUC of each row, and the differences of the Student."""
    order = ("baseline2", "baseline1", "control", "student", "ceiling")
    lines = []
    for one in results():
        cells = [number(one.means[key]) for key in order] + [one.gain.text, one.place.text]
        way = _percent(one.way) if 0 <= one.way <= 1 else "all" if one.way > 1 else DASH
        lines.append([f"{one.title}, {one.repeats}", one.marked, *cells, way])
    header = [
        "data", "examined", "no maps", "marks alone", "strongest control", "Student", "ceiling",
        "− better baseline", "− strongest control", "of the way",
    ]  # fmt: skip
    return table(header, lines)


def regimes() -> str:
    """Moving decoys with equal trials: with clean labels, and with marks alone."""
    names = {"baseline2": "no maps", "baseline1": "marks alone", "mixed": "mixed (no Teacher)"}
    names |= {"centre": "centered map", "shuffled": "the Teacher's maps, shuffled"}
    names |= {"shuffled_human": "people's maps, shuffled", "student": "**Student**"}
    names |= {"dfr": "`dfr`: no marks, 500 clean labels", "student_dfr": "Student, then `dfr`"}
    names |= {
        "repair": "no maps, repaired",
        "repair_shuffled": "no maps, repaired by shuffled maps",
    }
    names |= {"student_repair": "**Student, repaired**", "ceiling": "people's maps on all images"}
    sides = [equal_trials(study, names) for study in ("decoys_fair", "decoys_marks")]
    lines = [[name, *(sides[0].get(key, [DASH] * 3)), *(sides[1].get(key, [DASH] * 3))[:2]]
             for key, name in names.items()]  # fmt: skip
    header = ["row", "with clean labels", "Student minus it", "trials", "with marks alone"]
    return table([*header, "Student minus it"], lines)


def equal_trials(study: str, names: Iterable[str]) -> dict[str, list[str]]:
    """AUC of each row, the Student minus it, and trials."""
    rows = tables(study).table
    of = {row["key"]: row for row in rows[rows["set"] == "test"].to_dict("records")}
    keys = [
        key for key in names if key in of and key != "ceiling" and not key.startswith("student")
    ]
    found = holm_of([compared(study, key) for key in keys])
    texts = {key: one.text for key, one in zip(keys, found, strict=True)}
    return {
        key: [number(of[key]["mean"]), texts.get(key, DASH), f"{of[key]['trials']:.0f}"]
        for key in names
        if key in of
    }


def front() -> str:
    """Studies of few marks and a planted shortcut in the README."""
    order = ("baseline2", "baseline1", "control", "student", "ceiling")
    shown_there = {("Moving decoys ¹", "20 of 3,000"), *((one.title, one.marks) for one in FEW)}
    lines = [
        [one.title.removesuffix(" ¹"), one.marked, *(number(one.means[key]) for key in order)]
        for one in results()
        if (one.title, one.marked) in shown_there
    ]
    header = ["images", "marked", "no maps", "marks alone", "strongest control", "Student"]
    return table([*header, "marks on all images"], lines)


def controls() -> str:
    """Controls beside the Student."""
    keys = ("baseline2", "shuffled", "shuffled_human", "centre", "pca", "student", "ceiling")
    rows = []
    for study in STUDIES:
        found = [mean_auc(study, key) for key in keys]
        cells = [number(value) if value > 0 else DASH for value in found]
        rows.append([f"{study.title}, {repeats(study)}", *cells, archived(study).place.text])
    header = [
        "data", "no maps", "shuffled", "human maps, shuffled", "centered", "principal components",
        "Student", "ceiling", "Student minus the strongest control",
    ]  # fmt: skip
    return table(header, rows)


def _agreement(study: Study, key: str) -> float:
    """Mean correlation of a row's maps with human maps, over validation sets and seeds."""
    rows, runs = tables(study.folder).table, tables(study.folder).runs
    alpha = float(rows[rows["key"] == key]["alpha"].iloc[0])
    own = runs[(runs["role"] == key) & (runs["alpha"] == alpha)]
    sets = [one for one in tables(study.folder).table["set"].unique() if kind_or_none(one) == "val"]  # fmt: skip  # noqa: E501
    return float(map_agreement(own, sets).mean())


def marks() -> str:
    """Marks of each study, agreement of maps, and what the place of the maps is worth."""
    known = pd.read_csv(EVIDENCE / "other" / "marks.csv").set_index("data")
    rows = []
    for study in STUDIES:
        area, overlap = (float(known.loc[study.places, name]) for name in ("area", "overlap"))
        rows.append(
            [
                study.title, _percent(area), _percent(overlap),
                number(_agreement(study, "baseline2"), 2), number(_agreement(study, "ceiling"), 2),
                archived(study).place.text,
            ]
        )  # fmt: skip
    header = [
        "data", "area of a mark (median)", "covered by the mark of another image",
        "no maps: r", "all human maps: r", "Student minus the strongest control",
    ]  # fmt: skip
    return table(header, rows)


def _percent(share: float) -> str:
    return f"{number(100 * share, 0 if share >= 0.1 else 1)} %"


def by_seed(folder: str, key: str) -> Floats:
    """Student minus another row, by seed."""
    rows = tables(folder).comparisons
    (found,) = rows[(rows["key_b"] == key) & (rows["question"] == "RQ2")]["difference_by_seed"]
    return np.array(found, np.float64)


def pooled_difference(strata: Sequence[Floats]) -> tuple[Difference, tuple[float, float]]:
    """Random-effects mean over studies (Paule and Mandel) with the interval of Hartung and Knapp,
    and the prediction interval of a new study (Higgins, Thompson, Spiegelhalter 2009).

    p is that of sign flips within the studies, for the mean of their means: it is about these
    studies. The first interval is about the mean of all studies like these, the second about one.
    """
    y, v = (np.array([f(one) for one in strata]) for f in (np.mean, lambda d: d.var(ddof=1) / len(d)))  # fmt: skip  # noqa: E501
    free = len(y) - 1

    def around(tau: float) -> float:
        w = 1 / (v + tau)
        return float((w * (y - (w * y).sum() / w.sum()) ** 2).sum()) - free

    tau = 0.0 if around(0.0) <= 0 else float(optimize.brentq(around, 0.0, 1.0))
    w = 1 / (v + tau)
    mean = float((w * y).sum() / w.sum())
    spread = math.sqrt(float((w * (y - mean) ** 2).sum()) / free / float(w.sum()))
    half = float(stats.t.ppf(0.975, free)) * spread
    new = float(stats.t.ppf(0.975, free - 1)) * math.hypot(spread, math.sqrt(tau))
    of_mean = Difference(mean, mean - half, mean + half, sign_flips(strata))
    return of_mean, (mean - new, mean + new)


def sign_flips(strata: Sequence[Floats], drawn: int = 400_000) -> float:
    """p of the mean of the strata's means, with signs flipped seed by seed.

    Exact for up to 2¹⁶ patterns; otherwise of random ones, counting the observed pattern.
    """
    observed = abs(sum(float(one.mean()) for one in strata)) - 1e-12
    if sum(map(len, strata)) <= 16:
        totals = np.zeros(1)
        for one in strata:
            signs = np.array(list(product((-1.0, 1.0), repeat=len(one))))
            totals = (totals[:, None] + signs @ one / len(one)).ravel()
        return float((np.abs(totals) >= observed).mean())
    generator, totals = np.random.default_rng(0), np.zeros(drawn)
    for one in strata:
        totals += (generator.integers(0, 2, (drawn, len(one))) * 2.0 - 1) @ one / len(one)
    return float(((np.abs(totals) >= observed).sum() + 1) / (drawn + 1))


def pooled() -> str:
    """What a Student is worth over studies with few marks, and over the nine of 60 and more."""
    names = ("baseline1", "baseline2")
    few_studies = ({key: by_seed(study.folder, key) for key in names} for study in FEW)
    twenty = [decoy_studies()[0].by_seed, *few_studies]
    nine = [{key: by_seed(study.folder, key) for key in names} for study in STUDIES]
    lines = []
    planted = "moving decoys, brain MRI and road cracks with a stamp, small forged regions"
    for title, group in (
        (f"20 examined images: {planted}", twenty),
        ("60 and more: the nine studies without moving decoys", nine),
    ):
        better = [min((one[key] for key in names), key=lambda d: d.mean()) for one in group]
        strata = {
            "Baseline 1": [one["baseline1"] for one in group],
            "no maps": [one["baseline2"] for one in group],
            "the better baseline": better,
        }
        for name, parts in strata.items():
            found, new = pooled_difference(parts)
            text = f"{number(found.mean, sign=True)} ({interval(found.low, found.high)})"
            above = f"{sum(one.mean() > 0 for one in parts)} of {len(parts)}"
            lines.append([title, name, text, interval(*new), above, p_value(found.p)])
            title = ""
    header = [
        "studies",
        "Student minus",
        "mean, with its 95 % interval",
        "prediction interval of a new study",
    ]
    header += ["above on", "p for these"]
    return table(header, lines)


def _paired_by_seed(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Floats:
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours)])


def _aucs_of_ways(scored: pd.DataFrame) -> dict[tuple[str, str], dict[int, float]]:
    """AUCs by seed of each role and guidance method."""
    return {
        key: dict(zip(own["seed"], own["auc"], strict=True))
        for key, own in scored.groupby(["role", "guidance"])
    }


def _rows_of_ways(scored: pd.DataFrame, mark: str, epochs: bool) -> list[list[str]]:
    """A row for each guidance method, whose name has a mark; with the AUCs of two epochs."""
    means = scored[scored["role"] == "student"].groupby("guidance")[["selected", "last"]].mean()
    aucs, alphas = _aucs_of_ways(scored), scored.set_index("guidance")["alpha"]
    sides = {
        "student": ("shuffled", "shuffled_human", "centre", ""),
        "ceiling": ("shuffled_human", ""),
    }
    rows = []
    for way in means.index:
        cells = [f"{way}, α {min(alphas[way]):g}{mark}"]
        for role, others in sides.items():
            own = aucs[role, way]
            cells.append(number(float(np.mean([*own.values()]))))
            for key in others:
                cells.append(paired(own, aucs[key, way] if key else aucs["baseline2", "l2"]).text)
        cells += [", ".join(number(one) for one in means.loc[way])] if epochs else []
        rows.append(cells)
    return rows


def guidance(data: str, marked: int, earlier: str = "", epochs: bool = False) -> str:
    """Guidance methods with the Teacher's maps and with people's maps; those of an earlier study
    of the same images on another machine have a mark, and differences are within a study. `epochs`
    adds the AUC on validation at the selected and at the last epoch.
    """
    every = pd.read_csv(EVIDENCE / "other" / "guidance.csv")
    rows = _rows_of_ways(every[every["data"] == data], "", epochs)
    rows += _rows_of_ways(every[every["data"] == earlier], " ²", epochs) if earlier else []
    aucs = _aucs_of_ways(every[every["data"] == data])
    header = ["method", "Student", "− shuffled", "− people's maps, shuffled", "− centered map"]
    header += ["− no maps", "people's maps on all", "− shuffled", "− no maps"]
    header += ["val: selected, last"] if epochs else []
    others = {"no maps": "baseline2", f"{marked} marked images alone": "baseline1"}
    others |= {"the mapper as a detector": "mapper"} if ("mapper", "cells") in aucs else {}
    for title, role in others.items():
        means = {
            key[1]: float(np.mean([*own.values()])) for key, own in aucs.items() if key[0] == role
        }
        best = max(means, key=lambda way: means[way])
        way = f", {best}" if role == "baseline1" else ""
        rows.append([title + way, number(means[best]), *["–"] * (len(header) - 2)])
    return table(header, sorted(rows, key=lambda row: row[1], reverse=True))


def methods() -> str:
    """Guidance methods with equal trials; p is corrected for the rows of each column."""
    every = pd.read_csv(EVIDENCE / "other" / "compared.csv")
    runs = {key: own.set_index("draw") for key, own in every.groupby(["method", "maps"])}
    plain = runs.pop(("no maps", "none"))
    right = {method: own for (method, maps), own in runs.items() if maps == "right"}
    order = sorted(right, key=lambda method: -right[method]["test"].mean())
    others = [
        lambda method: plain,
        lambda method: runs[method, "shuffled"],
        lambda method: right["l2"],
    ]
    columns = []
    for other in others:
        rows = [one for one in order if other(one) is not right[one]]
        pairs = [
            paired(*(own["test"].to_dict() for own in (right[one], other(one)))) for one in rows
        ]
        columns.append(dict(zip(rows, [one.text for one in holm_of(pairs)], strict=True)))
    lines = [
        [f"`{name}`", f"{own['alpha'].iloc[0]:g}, {own['steps'].iloc[0]:,}",
         number(own["test"].mean()), number(runs[name, "shuffled"]["test"].mean()),
         *(column.get(name, DASH) for column in columns),
         f"{own['trials'].iloc[0]}, {own['trial_seconds'].iloc[0]:.0f} s"]
        for name in order
        for own in [right[name]]
    ]  # fmt: skip
    searched = f"{plain['trials'].iloc[0]}, {plain['trial_seconds'].iloc[0]:.0f} s"
    lines.append(["no maps", f"{DASH}, {plain['steps'].iloc[0]}", number(plain["test"].mean()),
                  *[DASH] * 4, searched])  # fmt: skip
    header = [
        "method",
        "α, steps",
        "people's maps",
        "shuffled",
        "− no maps",
        "− shuffled",
        "− `l2`",
    ]
    return table([*header, "trials"], lines)


def clicks() -> str:
    """Masks, boxes and clicks of the same images."""
    every = pd.read_csv(EVIDENCE / "other" / "clicks.csv")
    of = {key: dict(zip(own["seed"], own["auc"], strict=True))
          for key, own in every.groupby(["kind", "role"])}  # fmt: skip
    roles = {"baseline1": "marks alone", "student": "Student", "repair": "repair"}
    roles |= {"student_repair": "Student, repaired"}
    lines = []
    for kind in ("masks", "boxes", "clicks"):
        cells = [number(float(np.mean([*of[kind, role].values()]))) for role in roles]
        pairs = [(of[kind, role], of["masks", role]) for role in ("student", "student_repair")]
        same = kind == "masks"
        against = [DASH if same else paired(*both).text.replace("*", "") for both in pairs]
        lines.append([kind, *cells, *against])
    header = ["60 images marked by", *roles.values(), "Student − masks"]
    return table([*header, "repaired Student − masks"], lines)


def click_errors() -> str:
    """Clicks of another place or radius, minus the same images with exact clicks of 14 %."""
    every = pd.read_csv(EVIDENCE / "other" / "clicks.csv")
    of = {key: dict(zip(own["seed"], own["auc"], strict=True))
          for key, own in every.groupby(["kind", "role"])}  # fmt: skip
    roles, lines = ("student", "student_repair", "repair"), []
    for kind in dict.fromkeys(every["kind"]):
        if kind in ("masks", "boxes", "clicks"):
            continue
        cells = [number(float(np.mean([*of[kind, role].values()]))) for role in roles]
        if 50 in of[kind, "student"]:
            against = [paired(of[kind, role], of["clicks", role]) for role in roles[:2]]
            lines.append([kind, *cells, *(one.text.replace("*", "") for one in against)])
        else:
            lines.append([kind, *cells, DASH, DASH])
    header = ["clicks", "Student", "Student, repaired", "repair", "Student − exact clicks"]
    return table([*header, "repaired Student − exact clicks"], lines)


def pretrained() -> str:
    """Waterbirds with ImageNet weights and without clean labels."""
    found = tables("waterbirds")
    own = found.table[found.table["set"] == "test"]
    whole = own[own["source"] == ""].set_index("key")
    worst = own[own["source"] != ""].groupby("key")["accuracy"].min()
    against = found.comparisons[found.comparisons["key_a"] == "student"].set_index("key_b")
    lines = []
    for key, title in PRETRAINED.items():
        row = whole.loc[key]
        said = DASH
        if key in against.index:
            other = against.loc[key]
            said = Difference(other["mean"], other["low"], other["high"], other["p"]).text
        cells = [number(row["mean"]), number(row["std"]), number(worst[key])]
        lines.append([title, f"{row['trials']:.0f}", *cells, said])
    header = ["network", "trials", "AUC", "std", "accuracy of the worst group", "Student − this"]
    return table(header, lines)


PRETRAINED = {"baseline1": "marks alone", "baseline2": "no maps", "shuffled": "shuffled"}
PRETRAINED |= {"student": "Student", "repair": "repair", "repair_shuffled": "repair, shuffled"}
PRETRAINED |= {"student_repair": "Student, repaired"}


def published_order(data: str, columns: Mapping[str, str], wrong: str) -> str:
    """Accuracies of each method, and differences of the first one; `wrong`: name of the control."""
    scored = pd.read_csv(EVIDENCE / "other" / "published_orders.csv")
    accuracies = {
        method: {name: dict(zip(own["seed"], own[name], strict=True)) for name in columns}
        for method, own in scored[scored["data"] == data].groupby("method")
    }
    rows = []
    for method, own in accuracies.items():
        cells = [method, *(number(float(np.mean([*one.values()]))) for one in own.values())]
        for other in ("no maps", f"{method}, {wrong}"):
            there = other in accuracies and other != method
            cells.append(paired(own["mean"], accuracies[other]["mean"]).text if there else "–")
        rows.append(cells)
    header = ["method", *columns.values(), "− no maps", f"− {wrong}"]
    return table(header, sorted(rows, key=lambda row: row[1], reverse=True))


FASHION = {"mean": "test", "last": "val", "selected": "val, selected", "best": "val, best"}
DECOYS = ("baseline1", "baseline2", "mixed", "shuffled", "centre", "student", "ceiling")
CURVE = ("baseline1", "baseline2", "shuffled", "centre", "student", "ceiling")


@dataclass(frozen=True)
class DecoyStudy:
    """Moving decoys with one number of images and of marks.

    Args:
        images: Training images.
        marked: Examined ones.
        aucs: AUC of each row by draw.
        title: Name of the data in the table of all studies.
    """

    images: int
    marked: int
    aucs: Mapping[str, Mapping[int, float]]
    title: str = "Moving decoys ¹"

    @property
    def means(self) -> dict[str, float]:
        """Mean AUC of each row."""
        return {key: float(np.mean([*self.aucs[key].values()])) for key in DECOYS}

    @property
    def by_seed(self) -> dict[str, Floats]:
        """Student minus both baselines, by draw."""
        own = self.aucs["student"]
        return {key: _paired_by_seed(own, self.aucs[key]) for key in DECOYS[:2]}

    @property
    def result(self) -> Result:
        """Row of the table of all studies."""
        marked, count = f"{self.marked} of {self.images:,}", f"{len(self.aucs['student'])} draws"
        return corrected(self.title, marked, count, self.aucs)


def _by_role(study: pd.DataFrame) -> dict[str, dict[int, float]]:
    return {
        role: dict(zip(one["seed"], one["auc"], strict=True)) for role, one in study.groupby("role")
    }


@cache
def decoy_studies() -> tuple[DecoyStudy, ...]:
    """The frozen studies of moving decoys, 20 marks of 3,000 images first."""
    scored = pd.read_csv(EVIDENCE / "other" / "decoys_marks.csv", keep_default_na=False)
    scored = scored[scored["chosen"] == 1]
    return tuple(
        DecoyStudy(images, marked, _by_role(study))
        for (images, marked), study in scored.groupby(["images", "annotated"])
    )


def decoys() -> str:
    """AUC of every row on moving decoys."""
    rows = [
        [f"{one.images:,}", f"{one.marked}", *(number(one.means[key]) for key in DECOYS)]
        for one in decoy_studies()
    ]
    header = ["images", "marked", "marks alone", "no maps", "mixed", "shuffled", "centered"]
    return table([*header, "Student", "ceiling"], rows)


def _curve(network: str) -> dict[int, dict[str, dict[int, float]]]:
    """AUC of each row by draw, for each number of images; `spots` are small forged regions."""
    scored = pd.read_csv(EVIDENCE / "other" / "curve.csv", keep_default_na=False)
    scored = scored[(scored["chosen"] == 1) & (scored["network"] == network)]
    return {int(images): _by_role(study) for images, study in scored.groupby("images")}


def curve() -> str:
    """20 marks of each number of images, with the same number of steps."""
    studies = _curve("small_cnn")
    studies[3000] = dict(decoy_studies()[0].aucs)
    rows: list[list[str]] = []
    for images, own in sorted(studies.items()):
        means = [number(float(np.mean([*own[key].values()]))) for key in CURVE]
        rows.append([f"{images:,}", *means])
    for key in CURVE[1:4]:
        gains = [paired(own["student"], own[key]) for _, own in sorted(studies.items())]
        adjusted = holm([one.p for one in gains])
        for row, gain, p in zip(rows, gains, adjusted, strict=True):
            row.append(replace(gain, p=float(p)).text)
    small = _curve("spots")[500]
    large = {key: of_runs("spots_few", key) for key in small}
    for images, own in (("500", small), ("6,000", large)):
        own = {key: {draw: by_draw[draw] for draw in small[key]} for key, by_draw in own.items()}
        means = [
            number(float(np.mean([*own[key].values()]))) if key in own else DASH for key in CURVE
        ]
        gain = paired(own["student"], own["baseline2"]).text
        rows.append([f"{images}, small forged regions", *means, gain, DASH, DASH])
    header = ["images", "marks alone", "no maps", "shuffled", "centered", "Student", "ceiling"]
    return table([*header, "− no maps", "− shuffled", "− centered"], rows)


def at_size(folder: str, line: str, size: int) -> dict[int, float]:
    """AUC of a line of a budget by seed."""
    rows = tables(folder).budget
    (row,) = rows[(rows["line"] == line) & (rows["size"] == size)].to_dict("records")
    return dict(zip(map(int, row["seeds"]), row["by_seed"], strict=True))


def of_runs(folder: str, role: str, alpha: float | None = None) -> dict[int, float]:
    """AUC of the runs of a role on the primary set of a study by seed."""
    primary = {**BUDGETS, **{study.folder: study.primary for study in STUDIES + FEW_MARKS}}[folder]
    rows = aucs(folder)
    rows = rows[(rows["role"] == role) & (rows["set"] == primary) & (rows["source"] == "")]
    if alpha is not None:
        rows = rows[rows["alpha"] == alpha]
    return dict(zip(rows["seed"].astype(int), rows["auc"], strict=True))


@cache
def few_marks() -> str:
    """Student from each number of examined images, over both data sets together."""
    lines = []
    for size in (20, 60, 180, 600):
        cells = [str(size)]
        for name in ("baseline1", "baseline2"):
            strata = []
            for folder in BUDGETS:
                ours = at_size(folder, "student", size)
                theirs = at_size(folder, name, size) if name == "baseline1" else of_runs(folder, name)  # fmt: skip  # noqa: E501
                strata.append(np.array([ours[seed] - theirs[seed] for seed in sorted(ours)]))
            p = sign_flips(strata)
            mean = number(float(np.mean([one.mean() for one in strata])), sign=True)
            cells += [
                f"**{mean}**" if mean.startswith("+") and 4 * p <= LEVEL else mean,
                f"{p_value(p)}; {p_value(min(1.0, 4 * p))}",
            ]
        lines.append(cells)
    header = [
        "examined", "Student minus Baseline 1", "p; for four numbers", "Student minus no maps",
        "p; for four numbers",
    ]  # fmt: skip
    return table(header, lines)


def records() -> str:
    """Commit, trainings and hours of each study."""
    lines = []
    for study in (*FEW_MARKS, ROADS, *STUDIES):
        runs = tables(study.folder).runs.drop_duplicates("run")
        hours = f"{runs['seconds'].sum() / 3600:.1f}"
        title = f"{study.title}, {study.marks}" if study not in STUDIES else study.title
        lines.append([title, f"`{study.frozen}`", str(len(runs)), hours])
    header = ["data", "file frozen in", "trainings", "hours of a process"]
    return table(header, lines)


def photographs() -> str:
    """Intervals of the forged images with draws alone, and with photographs as random as well."""
    lines = []
    for folder in ("spots_few", "spots_evidence"):
        (study,) = (one for one in FEW + STUDIES if one.folder == folder)
        (record,) = read_archive(EVIDENCE / folder)
        arms = {row.key: next(iter(row.arms.values())) for row in record.setup.rows}
        hardest = min(controls_of(folder), key=lambda key: controls_of(folder)[key].mean)
        student = _over_photographs(record.tests_of(arms["student"]), study, record)
        for key, name in (("baseline1", "Baseline 1"), ("baseline2", "Baseline 2"), (hardest, "strongest control")):  # fmt: skip  # noqa: E501
            other = _over_photographs(record.tests_of(arms[key]), study, record)
            low, high = _two_part_interval(student - other)
            own = compared(folder, key)
            wider = (high - low) / (own.high - own.low) - 1
            lines.append(
                [
                    f"{study.title}, {study.marks}", name,
                    number(own.mean, sign=True), interval(own.low, own.high),
                    interval(low, high), f"{number(100 * wider, 0)} %",
                ]
            )  # fmt: skip
    header = ["data", "Student minus", "mean", "over draws", "over draws and photographs", "wider"]
    return table(header, lines)


def _over_photographs(
    side: Mapping[int, pd.DataFrame], study: Study, record: Any, resamples: int = 2000
) -> Floats:
    """AUC of each draw, (draws, 1 + resamples): of all photographs, and of resampled ones."""
    positive, found = str(record.setup.positive), list[Floats]()
    frames = [frame[frame["split"] == study.primary] for frame in side.values()]
    names = sorted({name for frame in frames for name in frame["group"]})
    weights = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    weights = np.vstack([np.ones(len(names), int), weights]).astype(np.float64)
    for own in frames:
        at = np.array([names.index(name) for name in own["group"]])
        truth = (own["label"] == positive).to_numpy()
        classes = [name.removeprefix("score_") for name in own if name.startswith("score_")]
        scores = positive_log_odds(own, classes, positive)
        found.append(auc_weighted(truth, scores, weights[:, at]))
    return np.array(found)


def _two_part_interval(differences: Floats) -> tuple[float, float]:
    """t interval of the mean difference whose variance has a part of draws and one of photographs.

    The draws split the same photographs, so that their differences are not independent. The part of
    the photographs is the variance of the mean over all draws when photographs are resampled.
    """
    of_draws = differences[:, 0].var(ddof=1) / len(differences)
    of_photographs = np.nanvar(np.nanmean(differences[:, 1:], axis=0), ddof=1)
    half = stats.t.ppf(0.975, len(differences) - 1) * math.sqrt(of_draws + of_photographs)
    mean = float(differences[:, 0].mean())
    return mean - half, mean + half


BLOCKS: dict[str, Callable[[], str]] = {
    "regimes": regimes,
    "methods": methods,
    "clicks": clicks,
    "click_errors": click_errors,
    "pretrained": pretrained,
    "front": front,
    "summary": summary,
    "controls": controls,
    "marks": marks,
    "pooled": pooled,
    "few_marks": few_marks,
    "records": records,
    "photographs": photographs,
    "clothes": partial(guidance, "clothes", 60),
    "cracks": partial(guidance, "cracks_x", 20, "cracks", epochs=True),
    "spots": partial(guidance, "spots_x", 20),
    "mri": partial(guidance, "mri", 20),
    "waterbirds": partial(
        published_order,
        "waterbirds",
        {"mean": "mean of groups", "worst": "worst group"},
        "shuffled",
    ),
    "fashion": partial(published_order, "fashion", FASHION, "wrong"),
    "decoys": decoys,
    "curve": curve,
    "few": few,
}


def with_tables(page: str) -> str:
    """A page with its blocks as the archives give them."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[3]}", page)


def plotted() -> dict[str, str]:
    """Numbers of each figure in words, which its file has as its description."""
    lines = []
    for one in results():
        means = ", ".join(f"{key} {number(value)}" for key, value in one.means.items())
        lines.append(f"{one.title}, {one.marked}: {means}; {one.gain.text}")
    numbers = {"evidence": "\n".join(lines)}
    for folder in BUDGETS:
        curve = tables(folder).budget.sort_values(["line", "size"])
        numbers[_figure_of(folder)] = "\n".join(
            f"{row.line}, {row.size}: {number(row.mean)} ({number(row.low)} to {number(row.high)})"
            for row in curve.itertuples()
        )
    return numbers


def _figure_of(folder: str) -> str:
    return f"budget-{folder.removesuffix('_budget').replace('_', '-')}"


def draw_figures() -> None:
    """Figure of the differences of all studies, and one of each budget."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "preceptor", "svg.fonttype": "none", "font.size": 9})
    rows = results()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.2, 4.6), layout="constrained", sharey=True, width_ratios=(3, 2)
    )
    places = -np.arange(len(rows))
    kinds = {
        "baseline2": ("no maps", "o", "#9aa3ad"),
        "baseline1": ("marked images alone", "s", "#5a636d"),
        "control": ("strongest control", "x", "#b35c00"),
        "student": ("Student", "D", "#1b5ab5"),
        "ceiling": ("people's maps on all images", "|", "#2e8b57"),
    }
    for key, (name, marker, color) in kinds.items():
        values = [one.means[key] for one in rows]
        left.plot(values, places, marker, color=color, label=name, ms=9 if marker == "|" else 6)
    left.set_yticks(places, [f"{one.title}: {one.marked}" for one in rows])
    left.set_xlabel("AUC on new images")
    left.grid(axis="y", color="0.92")
    means = np.array([one.gain.mean for one in rows])
    ends = np.array([(one.gain.mean - one.gain.low, one.gain.high - one.gain.mean) for one in rows])
    right.errorbar(means, places, xerr=np.abs(ends).T, fmt="D", ms=5, color="#1b5ab5")
    right.axvline(0, color="0.5", lw=0.8)
    right.grid(axis="y", color="0.92")
    right.set_xlabel("Student minus the better baseline")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    numbers = plotted()
    same = {"Date": None, "Creator": None}

    def save(figure: Any, name: str) -> None:
        """File with the numbers that it shows, which a test compares with the archives."""
        figure.savefig(IMAGES / f"{name}.svg", metadata=same | {"Description": numbers[name]})

    save(figure, "evidence")
    for folder in BUDGETS:
        figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
        curve = tables(folder).budget
        lines = {"student": "Student", "baseline1": "Baseline 1", "mapper": "mapper as a detector"}
        for (line, name), color in zip(
            lines.items(), ("#1b6ca8", "#555555", "#2e8b57"), strict=True
        ):
            own = curve[curve["line"] == line].sort_values("size")
            ends = np.abs(own[["low", "high"]].to_numpy().T - own["mean"].to_numpy())
            axis.errorbar(
                own["size"], own["mean"], yerr=ends, fmt="o-", ms=4, color=color, label=name
            )
        without = float(np.mean(list(of_runs(folder, "baseline2").values())))
        axis.axhline(without, ls=":", color="#b35c00", label="no maps")
        axis.set_xscale("log")
        sizes = sorted(int(one) for one in set(curve["size"]))
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("examined images")
        axis.set_ylabel("AUC")
        axis.legend(frameon=False)
        save(figure, _figure_of(folder))


def main() -> None:
    """Write the blocks of all pages and the figures."""
    for name in PAGES:
        page = ROOT / name
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    draw_figures()


if __name__ == "__main__":
    main()
