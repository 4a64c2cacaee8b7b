"""Score files are read once for a whole report, and memory holds their image columns once."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor.errors import InputError
from preceptor.report.write import write_results
from preceptor.results.score_files import ScoreFiles
from preceptor.runtime.result_folder import read_scores
from preceptor.study.plan import Plan
from preceptor.study.study_plan import StudyPlan
from tests.datasets import squares
from tests.studies import study, walk, write_down


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("finished")
    config = study(squares(folder / "data"), controls=["shuffled"])
    plan = walk(config, folder / "store", compute=False)
    write_down(StudyPlan.of(plan), lambda arm, seed: 0.5)
    return plan


def test_a_report_reads_each_score_file_once(
    finished: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, opened = Counter[str](), pq.ParquetFile

    def counted(path: Path, **how: Any) -> pq.ParquetFile:
        reads[str(path)] += 1
        return opened(path, **how)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    write_results(StudyPlan.of(finished), tmp_path, {})
    scores = {path: count for path, count in reads.items() if path.endswith("scores.parquet")}
    runs = {member.run for member in finished.members}
    assert len(scores) > len(runs)  # of validation and of test sets
    assert set(scores.values()) == {1}


def test_tables_are_those_of_the_files_and_share_their_image_columns(finished: Plan) -> None:
    files, protocol = ScoreFiles(), finished.protocol
    tables = []
    for member in finished.members:
        table = files.validation(protocol, member)
        pd.testing.assert_frame_equal(table, read_scores(protocol.run_folder(member.run)))
        assert table is files.validation(protocol, member)
        tables.append(table)
    assert len(tables) > 2
    paths = [pa.chunked_array(pa.array(table["path"])).chunk(0) for table in tables]
    assert len({[part.address for part in one.buffers() if part][-1] for one in paths}) == 1
    arm = next(iter(finished.members_of("baseline2"))).arm
    by_seed = files.tests_of(finished, arm)
    assert sorted(by_seed) == [0, 1]
    assert set(by_seed[0]["split"]) == {"test", "test-unseen"}


def test_a_step_that_finishes_later_does_not_appear(finished: Plan, tmp_path: Path) -> None:
    protocol = replace(finished.protocol, store=tmp_path / "store")
    member = next(iter(finished.members))
    files = ScoreFiles()
    assert files.validation(protocol, member) is None
    shutil.copytree(finished.protocol.store, protocol.store)
    assert files.validation(protocol, member) is None
    assert ScoreFiles().validation(protocol, member) is not None


@pytest.mark.parametrize(
    ("harm", "told"), [("gone", "is missing"), ("short", "damaged"), ("changed", "damaged")]
)
def test_a_score_file_that_cannot_be_read_is_named_with_a_remedy(
    finished: Plan, tmp_path: Path, harm: str, told: str
) -> None:
    member = next(iter(finished.members))
    shutil.copytree(finished.protocol.run_folder(member.run), tmp_path / "run")
    file = tmp_path / "run" / "scores.parquet"
    content = file.read_bytes()
    if harm == "gone":
        file.unlink()
    elif harm == "short":
        file.write_bytes(content[:100])
    else:
        file.write_bytes(content[:60] + bytes(340) + content[400:])
    with pytest.raises(InputError, match=rf"scores\.parquet(:)? {told}; run the study again"):
        read_scores(tmp_path / "run")
