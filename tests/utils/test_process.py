"""Cores, jobs, and the import of large libraries without garbage collection."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preceptor.errors import InputError
from preceptor.utils import process
from preceptor.utils.process import checked_jobs, core_count, job_count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", None),
        ("100000 100000", 1),
        ("150000 100000\n", 2),
        ("1 100000", 1),
        ("", None),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, text: str, expected: int | None) -> None:
    (file := tmp_path / "cpu.max").write_text(text)
    there = len(os.sched_getaffinity(0))
    assert core_count(file) == (there if expected is None else min(there, expected))


@pytest.mark.parametrize(("there", "threads", "jobs"), [(1, 1, 1), (2, 1, 2), (6, 4, 1), (2, 8, 1)])
def test_jobs_are_as_many_as_have_a_core_for_each_thread(
    there: int, threads: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "core_count", lambda: there)
    assert job_count(threads) == jobs
    told: list[str] = []
    assert checked_jobs(jobs, threads, told.append) == jobs
    assert not told
    assert checked_jobs(None, threads, told.append) is None
    assert not told
    assert checked_jobs(jobs + 1, threads, told.append) == jobs
    assert told[0].startswith(f"{jobs + 1} jobs of {threads} threads exceed the {there} cores")
    with pytest.raises(InputError, match="must be 1 or more"):
        checked_jobs(0, threads, told.append)
