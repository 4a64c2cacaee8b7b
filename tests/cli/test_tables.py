"""Every table of the command line at 80 columns: no heading is cut."""

from __future__ import annotations

import pandas as pd
import pytest
from rich.console import Console

from preceptor.cli.output import print_comparison, print_figures


def narrow() -> Console:
    return Console(width=80, record=True)


def check(text: str, headings: list[str]) -> None:
    assert "…" not in text, text
    assert max(map(len, text.splitlines())) <= 80, text
    for word in " ".join(headings).split():
        assert word in text.split(), f"{word} is not in:\n{text}"


def test_evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    numbers = dict.fromkeys(("auc", "eer", "accuracy", "average_precision", "brier"), 0.5)
    row = {"set": "test-unseen", "source": "stylegan", "images": 10000, "positives": 5000}
    print_figures(pd.DataFrame([row | numbers]), ["real", "fake"])
    headings = ["set", "source", "images", "positives", "AUC", "EER", "accuracy", "AP", "Brier"]
    check(capsys.readouterr().out, headings)
    row = {
        "set": "test-unseen",
        "images": 10000,
        "groups": 5000,
        "auc_a": 0.5,
        "auc_b": 0.5,
        "difference": 0.0,
        "low": -0.1,
        "high": 0.1,
        "p": 0.5,
    }
    print_comparison(pd.DataFrame([row]), ("a", "b"))
    table = capsys.readouterr().out.split("A: a\n")[0]
    check(table, ["set", "images", "groups", "AUC A", "AUC B", "95 % interval", "p"])
