"""`best/`: the card's numbers are the table's, the thresholds those of the run's validation."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from preceptor.metrics.operating_points import RULES, TERMS
from preceptor.metrics.scores import fixed_thresholds, set_auc
from preceptor.models.build import load_model
from preceptor.report.methods import model_card
from preceptor.report.words import study_findings
from preceptor.results.domain import gather_study, results_of
from preceptor.results.record import record_of
from preceptor.study.plan import StudyPlan
from preceptor.utils.results import read_scores
from tests.datasets import SPLITS
from tests.report.conftest import DOMAINS, NASTY, PRIMARY, Written
from tests.studies import scored_study

FOLDERS = dict(zip(DOMAINS, ("squares-a", "squares-a-2"), strict=True))


@pytest.fixture(params=DOMAINS)
def domain(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def card_of(written: Written, domain: str) -> str:
    return (written.out / "best" / FOLDERS[domain] / "README.md").read_text(encoding="utf-8")


def run_of(written: Written, domain: str) -> Path:
    found = re.search(r"^Run `(\w+)`", card_of(written, domain), re.MULTILINE)
    assert found is not None
    return written.study.plans[domain].protocol.run_folder(found[1])


def tables_of(card: str) -> list[list[list[str]]]:
    """The tables of a card, by row and cell, without marks of the best."""
    found: list[list[list[str]]] = []
    for block in card.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("| ")]
        cells = [re.split(r"(?<!\\) \| ", line[2:-2].replace("**", "")) for line in lines]
        found += [[row for row in cells if set(row) != {"---"}]] if lines else []
    return found


def mean_std(row: Any) -> str:
    """As the tables show it."""
    return f"{row['mean']:.3f} ± {row['std']:.3f}"


@pytest.fixture
def table(two_domains: Written, domain: str) -> pd.DataFrame:
    frame = pd.read_csv(two_domains.out / "table.csv", dtype={"source": str})
    return frame[frame["domain"] == domain].fillna({"source": ""})


def test_there_is_a_model_for_every_domain(two_domains: Written) -> None:
    assert {folder.name for folder in (two_domains.out / "best").iterdir()} == {*FOLDERS.values()}
    runs = {run_of(two_domains, domain) for domain in DOMAINS}
    assert len(runs) == 2
    for domain, folder in FOLDERS.items():
        model = load_model(two_domains.out / "best" / folder)
        own = load_model(run_of(two_domains, domain) / "model").state_dict()
        for name, value in model.state_dict().items():
            assert (value == own[name]).all()


def test_the_numbers_are_those_of_the_table(
    two_domains: Written, domain: str, table: pd.DataFrame
) -> None:
    primary = two_domains.study.plans[domain].protocol.primary
    assert primary == ("test-unseen" if domain == DOMAINS[0] else PRIMARY)
    here = table[table["set"] == primary]
    shown = tables_of(card_of(two_domains, domain))
    whole = here[(here["source"] == "") & (here["backbone"] == "test_byobnet")]
    main = {row[0]: row[1] for row in shown[0][1:]}
    titles = whole["title"].str.replace("centred", "centered")  # which files keep
    assert set(main) == {*titles}
    for title, (_, row) in zip(titles, whole.iterrows(), strict=True):
        assert main[title].startswith(mean_std(row)), title

    by_source = {row[0]: row[1:] for row in shown[2][1:]}
    parts = here[(here["source"] != "") & (here["backbone"] == "test_byobnet")]
    keys = list(whole["key"])
    assert len(shown[2][0]) == len(keys) + 1
    checked = 0
    for source, group in parts.groupby("source"):
        if source == "plain":  # negatives alone have no AUC
            continue
        name = f"{source} ({group['images'].iloc[0]})".replace("|", "\\|")
        for key, cell in zip(keys, by_source[name], strict=True):
            assert cell == mean_std(group[group["key"] == key].iloc[0])
            checked += 1
    assert checked == 3 * len(keys)
    assert (NASTY.replace("|", "\\|") in card_of(two_domains, domain)) == (domain == DOMAINS[1])


def test_error_rates_are_those_of_the_file(two_domains: Written, domain: str) -> None:
    rates = pd.read_csv(two_domains.out / "rates.csv", keep_default_na=False)
    primary = two_domains.study.plans[domain].protocol.primary
    own = rates[(rates["domain"] == domain) & (rates["set"] == primary)]
    shown = tables_of(card_of(two_domains, domain))
    head, *rows = shown[1]
    student = next(row for row in rows if row[0].startswith("Student"))
    chosen = own[(own["run"] == run_of(two_domains, domain).name) & (own["kind"] == "fixed")]
    arm = chosen.iloc[0]
    same = own[(own["role"] == "student") & (own["alpha"] == arm["alpha"])]
    same = same[(same["teacher"] == arm["teacher"]) & (same["kind"] == "fixed")]
    for name, measure in (("BPCER", "bpcer"), ("ACER", "acer")):
        values = same[same["measure"] == measure].drop_duplicates("seed")["value"].astype(float)
        assert len(values) == 3
        assert student[head.index(name)] == f"{values.mean():.3f} ± {values.std():.3f}"


def test_what_it_says_of_itself(two_domains: Written, domain: str) -> None:
    card, plan = card_of(two_domains, domain), two_domains.study.plans[domain]
    scores = read_scores(run_of(two_domains, domain))
    values = [set_auc(part, ["marked", "plain"], "marked") for _, part in scores.groupby("split")]
    assert f"(AUC {min(values):.3f} on the worst validation set)" in card
    setting = plan.setting_of("student", "test_byobnet")
    assert setting is not None
    assert f"guided ({setting}) by the saliency maps of a Teacher ({plan.winner()})" in card
    seed = yaml.safe_load((run_of(two_domains, domain) / "config.yaml").read_text())["seed"]
    assert f"It is seed {seed}, the median of 3 seeds on validation" in card


def test_thresholds_are_those_of_the_runs_validation(two_domains: Written, domain: str) -> None:
    scores = read_scores(run_of(two_domains, domain))
    expected = fixed_thresholds(scores, "marked", [*RULES, "fdr=0.5"])
    assert "fdr=0.5" in expected  # the study's own rule, which is not among all models' rules
    assert "eer" in expected
    folder = two_domains.out / "best" / FOLDERS[domain]
    written = json.loads((folder / "model.json").read_text())["thresholds"]
    assert written == pytest.approx(expected)
    rules = tables_of(card_of(two_domains, domain))[-1]
    assert rules[0] == ["rule", "threshold"]
    told = {}
    for name, value in rules[1:]:
        words, rule = re.fullmatch(r"(.*) \(`(.*)`\)", name).groups()  # type: ignore[union-attr]
        told[rule] = float(value)
        assert words == {"eer": TERMS["pad"].eer, "fdr=0.5": "FDR 50 %"}[rule]
    assert told == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("role", "better", "words"),
    [
        ("mapper", (3.0, 3.0), "It is a mapper: "),
        ("baseline1", (3.0, 3.0), "It is a Baseline 1: "),
        ("baseline1", (0.9, -0.2), "It is a Baseline 1: "),  # a tie
        ("ceiling", (3.0, 3.0), "It is a Student: "),  # of maps that a user does not have
    ],
)
def test_the_model_for_use_is_the_best_on_validation(
    tmp_path: Path, role: str, better: tuple[float, float], words: str
) -> None:
    plan = scored_study(
        tmp_path,
        lambda arm, seed: 0.5 + better[seed] * (arm.role == role) + 0.1 * (arm.role == "student"),
        SPLITS | {"val": 80},
        mapper=True,
        controls=(),
    )
    found = gather_study(StudyPlan.of(plan))
    best = found.first.best
    assert set(best) == {"student", "baseline1", "mapper", "baseline2"}
    assert best["student"].arm.role == "student"
    said = study_findings(StudyPlan.of(plan), found).by_domain[""]
    card = model_card(plan, found.first, said)
    assert words in card
    assert f"`best/` has {said.best}" in card
    tie = "A tie: the 95 % interval of the difference includes 0."
    assert (tie in said.best) == (better[1] < 0 or role == "ceiling")
    student = f"The Student of the protocol is run {best['student'].run}."
    assert (student in said.best) == (words != "It is a Student: ")
    # Without scores of the test sets the choice is the same.
    record = record_of(plan)
    untested = replace(record, scores=lambda member: (record.validation(member), None))
    assert results_of(untested).best == best


@pytest.mark.parametrize("clean", [False, True])
def test_a_network_without_maps_is_for_use_only_by_clean_labels(
    tmp_path: Path, clean: bool
) -> None:
    """On a set that may have the shortcut of the training, it is best by the shortcut."""
    splits = SPLITS | ({"val-clean": 80} if clean else {})  # too few marks for swapped images
    plan = scored_study(
        tmp_path,
        lambda arm, seed: 0.5 + 3 * (arm.role == "baseline2") + (arm.role == "student"),
        splits,
        controls=("dfr",),
    )
    best = gather_study(StudyPlan.of(plan)).first.best
    assert next(iter(best)) == ("baseline2" if clean else "student")
    rows = {row.key for row in record_of(plan).setup.rows}
    assert ({"dfr", "student_dfr"} <= rows) == clean
    assert "dfr" in rows or not clean
