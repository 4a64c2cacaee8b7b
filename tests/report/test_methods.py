"""Methods section: the sentences name what was computed."""

from __future__ import annotations

from preceptor.evaluation.paired_tests import EXACT_UP_TO
from preceptor.report.methods import selection_sentence, sign_flip_words


def test_ties_of_draws_are_by_t_intervals() -> None:
    assert "t interval" in selection_sentence("val_auc", draws=True)
    assert "bootstrap" not in selection_sentence("guided", draws=True)
    assert "bootstrap" in selection_sentence("guided", draws=False)


def test_tests_of_many_seeds_are_not_called_exact() -> None:
    assert sign_flip_words(EXACT_UP_TO).startswith("exact")
    assert "exact" not in sign_flip_words(EXACT_UP_TO + 1)
