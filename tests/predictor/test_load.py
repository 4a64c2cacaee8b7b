"""Loading of signed models where keys are trusted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import preceptor
from preceptor.errors import InputError
from preceptor.model_export.export import ExportSettings, export_model
from preceptor.models.model_folder import load_own_model
from preceptor.runtime.checksums import CHECKSUMS, write_checksums
from preceptor.runtime.signatures import SIGNATURE, TRUSTED_KEYS, sign_model, write_new_key
from preceptor.serve.served_model import ModelPath, ServedModel
from preceptor.serve.settings import ServeSettings
from tests.commands import assert_refused, here
from tests.exported_files import onnx_file

IMAGE = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_new_key(tmp_path / "me.key")
    return tmp_path / "me.key"


@pytest.fixture
def trusted(tmp_path: Path, key: Path) -> Path:
    return tmp_path / "me.key.pub"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(onnx_file().folder, tmp_path / "best"))


def test_a_signed_model_is_loaded_and_an_unsigned_one_refused(
    model: Path, key: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for load in (preceptor.load, preceptor.load_model):
        with pytest.raises(InputError, match="not signed"):
            load(model, trusted_keys=trusted)
    load_own_model(model)  # as the steps of a study do
    sign_model(model, key)
    wanted = preceptor.load(model, device="cpu")(IMAGE).score
    assert preceptor.load(model, device="cpu", trusted_keys=trusted)(IMAGE).score == wanted
    monkeypatch.setenv(TRUSTED_KEYS, str(trusted))
    assert preceptor.load(model, device="cpu")(IMAGE).score == wanted


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_changed_byte_is_refused_with_new_checksums_too(
    model: Path, key: Path, trusted: Path, name: str
) -> None:
    sign_model(model, key)
    content = bytearray((model / name).read_bytes())
    content[-10] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(InputError, match="does not match its checksum"):
        preceptor.load(model, trusted_keys=trusted)
    write_checksums(model, ("model.json", "model.safetensors"))
    with pytest.raises(InputError, match="the signature is wrong"):
        preceptor.load(model, trusted_keys=trusted)


def test_a_pipe_is_no_signed_file(tmp_path: Path, trusted: Path) -> None:
    pipe = tmp_path / "fake.onnx"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="no regular file"):
        preceptor.load(pipe, trusted_keys=trusted)


def test_a_reference_that_was_added_is_refused(model: Path, key: Path, trusted: Path) -> None:
    sign_model(model, key)
    for name in ("reference.json", "reference.safetensors"):
        (model / name).write_text("{}")
    with pytest.raises(InputError, match=r"reference\.json does not match"):
        preceptor.load(model, trusted_keys=trusted)


def test_signed_checksums_without_the_weights_are_refused(
    model: Path, key: Path, trusted: Path
) -> None:
    write_checksums(model, ("model.json",))
    sign_model(model, key)
    with pytest.raises(InputError, match=f"{CHECKSUMS} .* is missing or incomplete"):
        preceptor.load(model, trusted_keys=trusted)


def test_an_exported_file_has_a_signature_of_its_own(
    tmp_path: Path, key: Path, trusted: Path
) -> None:
    file = tmp_path / "fake.onnx"
    shutil.copy(onnx_file().path, file)
    with pytest.raises(InputError, match="not signed"):
        preceptor.load(file, trusted_keys=trusted)
    assert here("sign", file, "--key", key, "--who", "Ada").code == 0
    assert preceptor.load(file, device="cpu", trusted_keys=trusted)(IMAGE).decision


def test_every_model_of_an_ensemble_is_checked(
    tmp_path: Path, model: Path, key: Path, trusted: Path
) -> None:
    sign_model(model, key)
    other = Path(shutil.copytree(model, tmp_path / "other"))
    (other / SIGNATURE).unlink()
    with pytest.raises(InputError, match="other: not signed"):
        preceptor.load([model, other], trusted_keys=trusted)


def test_commands_check_the_keys_of_the_environment(
    tmp_path: Path, model: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,label,split\n")
    monkeypatch.setenv(TRUSTED_KEYS, str(trusted))
    out, image = tmp_path / "out", tmp_path / "x.png"
    image.touch()
    for command in (
        ("predict", model, image),
        ("export", model, "--to", "folder", "--out", out),
        ("calibrate", model, manifest, "--out", out),
        ("evaluate", model, manifest),
        ("explain", model, image, "--out", out.with_suffix(".html")),
        ("annotate", model, manifest, "--out", out),
        ("serve", model, "--port", 0),
    ):
        assert_refused(here(*command), ["not signed"])
    assert not out.exists()


def test_a_copy_keeps_the_signature(
    tmp_path: Path, model: Path, key: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_model(model, key)
    monkeypatch.setenv(TRUSTED_KEYS, str(trusted))
    export_model(model, tmp_path / "copy", ExportSettings("folder"))
    assert preceptor.load(tmp_path / "copy", device="cpu")(IMAGE).decision


def test_a_server_goes_on_with_the_signed_version(model: Path, key: Path, trusted: Path) -> None:
    sign_model(model, key)
    settings = ServeSettings(device="cpu", batch_size=1, trusted_keys=trusted)
    served = ServedModel(ModelPath("best", model), settings)
    signed = (model / SIGNATURE).read_text()
    (model / SIGNATURE).unlink()
    served.look()
    assert "not signed" in served.state.error
    (model / SIGNATURE).write_text(signed)
    served.look()
    assert served.state.error == ""
