from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.inference.score import evaluate
from preceptor.metrics.scores import check_score_file, write_scores
from preceptor.models.build import build_model
from tests.datasets import squares

SCORES = pd.DataFrame(
    {"path": ["a"], "label": ["x"], "split": ["val"], "source": [""], "group": [""]}
).assign(score_x=0.4, score_y=0.6)


def test_an_earlier_score_table_may_be_replaced(tmp_path: Path) -> None:
    check_score_file(tmp_path / "new.parquet")
    write_scores(SCORES, tmp_path / "scores.parquet")
    check_score_file(tmp_path / "scores.parquet")
    write_scores(SCORES.drop(columns="group"), tmp_path / "scores.parquet")
    check_score_file(tmp_path / "scores.parquet")


@pytest.mark.parametrize("name", ["m.csv", "m.parquet", "a.png", "empty", "cut.parquet", "."])
def test_nothing_else_is_replaced(tmp_path: Path, name: str) -> None:
    manifest = Manifest.read(squares(tmp_path / "data"))
    manifest.write(tmp_path / "m.csv")
    manifest.write(tmp_path / "m.parquet")
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "empty").touch()
    write_scores(SCORES, tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-9])
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    model = build_model("test_resnet", ["marked", "plain"], positive="marked", input_size=32)
    with pytest.raises(InputError, match=r"is not a score table|is a folder"):
        evaluate(model, manifest, out=tmp_path / name)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_a_manifest_with_a_column_of_scores_is_no_score_table(tmp_path: Path) -> None:
    write_scores(SCORES.assign(saliency=""), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="not a score table"):
        check_score_file(tmp_path / "m.parquet")
