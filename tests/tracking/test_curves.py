"""metrics.csv while it is being written."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.tracking.curves import Curves, read_curves

HEAD = "epoch,loss,guidance,val_auc\n"


def curves(folder: Path, text: str) -> Curves:
    (folder / "metrics.csv").write_text(text)
    return read_curves(folder)


def test_no_file_yet(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == Curves()
    assert curves(tmp_path, "").rows == curves(tmp_path, HEAD).rows == ()


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    found = curves(tmp_path, HEAD + "1,0.5,,0.75\n2,inf,0.25,nan\n")
    assert found.rows == ((1, {"loss": 0.5, "val_auc": 0.75}), (2, {"guidance": 0.25}))


@pytest.mark.parametrize("torn", ["2,0.4", "2,0.4,0.2,0.8", "2,0.4,0.2\n", "x,0.4,0.2,0.8\n"])
def test_a_row_that_is_not_whole_waits(tmp_path: Path, torn: str) -> None:
    before = curves(tmp_path, HEAD + "1,0.5,,0.75\n")
    assert curves(tmp_path, HEAD + "1,0.5,,0.75\n" + torn) == before


def test_the_digest_of_the_first_epochs_stays(tmp_path: Path) -> None:
    one = curves(tmp_path, HEAD + "1,0.5,,0.75\n")
    two = curves(tmp_path, HEAD + "1,0.5,,0.75\n2,0.4,0.2,0.8\n")
    other = curves(tmp_path, HEAD + "1,0.6,,0.75\n2,0.4,0.2,0.8\n")
    assert one.digest(1) == two.digest(1) != other.digest(1)
    assert one.digest(2) == ""
    assert two.digest(1) != two.digest(2)
