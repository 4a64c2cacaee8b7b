from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from preceptor.utils.files import failed_write, named_errors, tensors_to
from tests.small_files import files_up_to


def test_a_file_of_tensors_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(OSError) as caught, files_up_to(1000), tensors_to(path):  # noqa: PT011
        save_file({"w": torch.zeros(1000)}, path)
    told = failed_write(caught.value, tmp_path)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told


def test_an_error_that_names_no_file_gets_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with files_up_to(10), pytest.raises(OSError, match="too large") as caught, named_errors(path):
        path.write_text("more than ten letters")
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as missing, named_errors(path):
        (tmp_path / "missing").read_text()
    assert missing.value.filename == str(tmp_path / "missing")


def test_an_error_without_a_file_names_what_was_written() -> None:
    assert failed_write(OSError(28, "No space left"), Path("runs")) == "runs: No space left"
    assert failed_write(OSError("cut"), Path("runs")) == "runs: cut"
