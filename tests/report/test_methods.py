"""Methods section: the sentences name what was computed."""

from __future__ import annotations

from preceptor.metrics.paired_tests import EXACT_UP_TO
from preceptor.report.methods import selection_sentence, sign_flip_words


def test_ties_of_draws_are_by_t_intervals() -> None:
    assert "t interval" in selection_sentence("val_auc", draws=True)
    assert "bootstrap" not in selection_sentence("guided", draws=True)
    assert "bootstrap" in selection_sentence("guided", draws=False)


def test_every_way_to_break_a_tie_is_told() -> None:
    """A Teacher without human guidance has no α, and a candidate may have no agreement."""
    for rule in ("guided", "val_auc"):
        said = selection_sentence(rule, draws=False)
        assert "smaller α" in said
        assert said.endswith(", or by the higher AUC where the α cannot be compared.")
    assert "agreement" in selection_sentence("guided", draws=False)


def test_tests_of_many_seeds_are_not_called_exact() -> None:
    assert sign_flip_words(EXACT_UP_TO).startswith("exact")
    assert "exact" not in sign_flip_words(EXACT_UP_TO + 1)
