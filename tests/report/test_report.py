"""The report of real, tiny studies: whole, partial, of one seed and of three classes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from preceptor.report.methods import methods
from preceptor.report.write import write_results
from preceptor.results.tables import RUNS, read_table
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Failure
from tests.datasets import SPLITS, squares
from tests.report.conftest import Page
from tests.studies import gather, scored_study, study, walk

TABLES = ("results.csv", "table.csv", "summary.md", "comparisons.csv")


def checked(out: Path) -> tuple[str, Page]:
    """The page of a study folder after what must hold for each of them."""
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(text) < 3_000_000
    assert all(link.startswith("data:") for link in page.loaded)
    inside = re.findall(r"url\(([^)]*)", text)
    assert all(found.startswith(("data:image/", "#")) for found in inside)
    assert "@import" not in text
    assert max(page.ids.values()) == 1
    targets = {link[1:] for link in page.links if link.startswith("#")}
    assert targets <= set(page.ids)
    beside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert all((out / link).exists() for link in beside)
    drawn = len(re.findall('<svg role="img"', text))
    assert drawn == len(list((out / "figures").iterdir()))
    assert page.tags["h1"] == 1
    assert page.tags["table"] == page.tags["caption"]
    assert all(header.get("scope") in ("col", "row") for header in page.headers)
    assert all(image.get("alt") for image in page.images)
    assert not re.search(r">\s*(nan|None|inf)\b", text)
    return text, page


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("finished")
    config = study(squares(folder / "data", size=(40, 32)), published="teaching-ai-to-teach")
    return walk(config, folder / "store")


@pytest.fixture(scope="module")
def whole(finished: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its report."""
    out = tmp_path_factory.mktemp("whole")
    write_results(StudyPlan.of(finished), out, {})
    return out


def copy_of(plan: Plan, store: Path) -> Path:
    shutil.copytree(plan.protocol.store, store)
    return store


def test_everything_is_on_the_page(finished: Plan, whole: Path) -> None:
    text, page = checked(whole)
    assert "for a backbone of the published table (densenet121, resnet50," in text
    for heading in (
        "What the maps are worth",
        "RQ1: which Teacher?",
        "RQ2: does guidance improve every architecture?",
        "RQ3: by how much?",
        "Published results",
        "Error rates",
        "Selection of α",
        "Methods",
        "Saliency maps",
    ):
        assert f">{heading}</h2>" in text
    assert ">RQ4" not in text
    assert "What is missing" not in text
    hits, misses = text.count("✓ hit"), text.count("✗ miss")
    assert hits + misses == 12
    assert len(page.images) >= 3 * 12
    assert text.count('<svg role="img"') == 2  # ladder, ROC
    assert text.count("<details") == page.tags["h2"] - 2  # but for the verdict and the ladder
    assert 'class="best"' in text
    assert "(best)" in text
    assert text.index('id="ladder"') < text.index("<figure>") < text.index('id="rq1"')
    summary = json.loads((whole / "summary.json").read_text())
    (ladder,) = summary["ladders"]
    assert [rung["name"] for rung in ladder["rungs"]] == ["none", "any", "teacher", "human"]
    assert summary["verdict"]["place"].startswith("What the place of the maps is worth")
    assert summary["primary"] == "test-unseen"
    assert summary["missing"] == []
    assert set(summary["answers"]) == {"RQ1", "RQ2", "RQ3"}
    runs = read_table(whole / "runs.csv", RUNS)
    assert len(runs) == len(finished.members)
    assert set(runs["guidance"]) == {""}  # the way of guiding, not the term of the loss
    assert (runs.loc[runs["role"] == "student", "guidance_term"] > 0).all()


def test_the_same_bytes_in_whatever_order_runs_were_known(
    finished: Plan, whole: Path, tmp_path: Path
) -> None:
    members = finished.members
    try:
        finished.members = dict.fromkeys(reversed(members))
        write_results(StudyPlan.of(finished), tmp_path, {})
    finally:
        finished.members = members
    for name in TABLES:
        assert (whole / name).read_bytes() == (tmp_path / name).read_bytes()


def test_it_is_told_where_trainings_were_computed(finished: Plan, tmp_path: Path) -> None:
    store = copy_of(finished, tmp_path / "store")
    plan = walk(finished.protocol.study, store)
    records = sorted(store.glob("runs/*/run.json"))
    plain = " ".join(methods(plan, gather(plan)))
    assert plain.count("Computed on cpu (") == 1
    record = json.loads(records[0].read_text()) | {"device": "cuda:0"}
    records[0].write_text(json.dumps(record))
    told = " ".join(methods(plan, gather(plan)))
    assert "; on c" in told


def test_nothing_finished(finished: Plan, tmp_path: Path) -> None:
    plan = walk(finished.protocol.study, tmp_path / "store", compute=False)
    write_results(
        StudyPlan.of(plan),
        tmp_path,
        {"an-id": Failure("train", "train teacher <x>", "the disk is full & more")},
    )
    text, page = checked(tmp_path)
    assert "No answer yet" in text
    assert "What is missing" in text
    assert "train teacher &lt;x&gt;" in text
    assert "0 of" in text
    assert not page.images
    assert (tmp_path / "table.csv").read_text().startswith("key,title,backbone,")


def test_trained_models_without_scores_of_the_test_sets_are_listed(tmp_path: Path) -> None:
    """Their training has finished, so that nothing else says why the tables lack them."""
    plan = scored_study(tmp_path, lambda arm, seed: 0.5, SPLITS, controls=(), ceiling=False)
    scored = [one for one in plan.members if plan.protocol.evaluation_id(one) in plan.steps]
    without = [one for one in scored if one.arm.role == "student"]
    for member in without:
        identity = plan.protocol.evaluation_id(member)
        shutil.rmtree(plan.protocol.evaluation_folder(identity))
    write_results(StudyPlan.of(plan), tmp_path / "out", {})
    text, _ = checked(tmp_path / "out")
    missing = json.loads((tmp_path / "out" / "summary.json").read_text())["missing"]
    assert len(missing) == len(without) == 2
    assert missing[0].startswith("student test_byobnet α 0.5 seed ")
    assert all(one.endswith(" has no scores of the test sets") for one in missing)
    assert all(one in text for one in missing)
    runs = len({one.run for one in plan.members})
    told = f"{runs} of {runs} trainings are finished, and 2 of them have no scores of the test sets"
    assert told in text
    assert "2 finished trainings have no scores of the test sets yet" in text
    assert "have not finished" not in text


def test_images_that_went_away_cost_the_panels_alone(finished: Plan, tmp_path: Path) -> None:
    store = copy_of(finished, tmp_path / "store")
    for member in finished.members:
        (store / "runs" / member.run / "model" / "model.json").unlink(missing_ok=True)
    kept = finished.protocol.store
    try:
        finished.protocol.store = store
        write_results(StudyPlan.of(finished), tmp_path, {})
    finally:
        finished.protocol.store = kept
    text, page = checked(tmp_path)
    assert "They could not be made" in text
    assert not page.images
    assert ">RQ2: does guidance improve every architecture?</h2>" in text
    assert "test-unseen: AUC of marked" in text


def test_one_seed_and_three_classes(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", classes=("a<b", "c&d", 'e"f'))
    values = {"seeds": 1, "positive": None, "controls": (), "ceiling": False}
    plan = walk(study(manifest, **values), tmp_path / "store")
    write_results(StudyPlan.of(plan), tmp_path / "out", {})
    text, page = checked(tmp_path / "out")
    assert "Nothing can be concluded from one seed" in text
    assert "a&lt;b" in text
    assert "decision thresholds" not in text
    assert "error rates at the threshold" not in text
    assert "<b>" not in text
    assert page.images
