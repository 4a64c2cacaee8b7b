"""Signatures of models: what is refused, and what nothing is claimed of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from preceptor.errors import InputError
from preceptor.runtime.checksums import CHECKSUMS, write_checksums
from preceptor.runtime.signatures import (
    SIGNATURE,
    TRUSTED_KEYS,
    check_signature,
    sign_model,
    signature_file,
    write_new_key,
)
from tests.commands import APART, HANGS
from tests.small_files import files_up_to


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_new_key(tmp_path / "me.key")
    return tmp_path / "me.key"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Folder with the names of the files of a model."""
    folder = tmp_path / "best"
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    write_checksums(folder, ("model.json", "model.safetensors"))
    return folder


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def refusal(model: Path, trusted: Path) -> str:
    """Message of the refusal, which is one line and names no path of the keys."""
    with pytest.raises(InputError) as found:
        check_signature(model, trusted)
    message = str(found.value)
    assert "\n" not in message
    assert str(trusted) not in message.removeprefix(f"{model}: ")
    return message


def test_a_signed_model_is_accepted_with_its_key_alone(
    tmp_path: Path, key: Path, model: Path
) -> None:
    made = sign_model(model, key, "Ada, lab 3")
    found = check_signature(model, public(key))
    assert found == made
    assert found is not None
    assert found.who == "Ada, lab 3"
    assert found.when.endswith("+00:00")

    write_new_key(tmp_path / "other.key")
    assert "not a trusted key" in refusal(model, tmp_path / "other.key.pub")
    assert check_signature(model, tmp_path) == made  # a folder with both public keys
    public(key).unlink()
    assert made.key[:16] in refusal(model, tmp_path)


def test_an_unsigned_model_is_refused_where_keys_are_trusted(
    key: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not signed" in refusal(model, public(key))
    monkeypatch.setenv(TRUSTED_KEYS, str(public(key)))
    with pytest.raises(InputError, match="not signed"):
        check_signature(model)
    sign_model(model, key)
    assert check_signature(model) is not None


def test_nothing_is_checked_without_trusted_keys(
    key: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_model(model, key)
    (model / SIGNATURE).write_text("anything")
    monkeypatch.delenv(TRUSTED_KEYS, raising=False)
    assert check_signature(model) is None
    monkeypatch.setenv(TRUSTED_KEYS, "")  # as by a variable of a script that is not set
    with pytest.raises(InputError, match="PRECEPTOR_TRUSTED_KEYS is set and empty"):
        check_signature(model)


@pytest.mark.parametrize("name", [CHECKSUMS, SIGNATURE])
def test_every_changed_byte_is_refused(key: Path, model: Path, name: str) -> None:
    sign_model(model, key, "Ada")
    file = model / name
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in (0x01, 0x20):  # the second one changes the case of letters
            changed = bytes([whole[place] ^ bit])
            file.write_bytes(whole[:place] + changed + whole[place + 1 :])
            refusal(model, public(key))
    file.write_bytes(whole)
    assert check_signature(model, public(key)) is not None


def test_the_layout_of_the_checksums_is_not_signed(key: Path, model: Path) -> None:
    sign_model(model, key)
    file = model / CHECKSUMS
    file.write_text(file.read_text().replace("\n", ""))
    assert check_signature(model, public(key)) is not None


def test_a_signature_of_another_model_is_wrong(tmp_path: Path, key: Path, model: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    (other / "model.json").write_text('{"classes": []}')
    write_checksums(other, ("model.json", "model.safetensors"))
    sign_model(other, key)
    shutil.copy(other / SIGNATURE, model / SIGNATURE)
    assert "the signature is wrong" in refusal(model, public(key))
    (model / CHECKSUMS).unlink()
    assert f"{CHECKSUMS} is missing" in refusal(model, public(key))


def test_a_file_has_its_signature_beside_it(tmp_path: Path, key: Path) -> None:
    file = tmp_path / "fake.onnx"
    file.write_bytes(b"graph")
    sign_model(file, key)
    assert signature_file(file) == tmp_path / "fake.onnx.sig"
    assert check_signature(file, public(key)) is not None
    file.write_bytes(b"grapi")
    assert "fake.onnx or fake.onnx.sig was changed" in refusal(file, public(key))


def test_a_damaged_model_is_not_signed(key: Path, model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(InputError, match=r"model\.safetensors does not match"):
        sign_model(model, key)
    (model / CHECKSUMS).unlink()
    with pytest.raises(InputError, match=f"{CHECKSUMS} is missing"):
        sign_model(model, key)
    assert not (model / SIGNATURE).exists()
    with pytest.raises(InputError, match="one line of at most 200"):
        sign_model(model, key, "two\nlines")


def test_a_key_is_written_once_and_for_its_owner(tmp_path: Path, key: Path, model: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(InputError, match="exists, and a key is never replaced"):
        write_new_key(key)
    key.rename(tmp_path / "moved.key")
    with pytest.raises(InputError, match=r"me\.key\.pub exists"):
        write_new_key(key)
    assert not key.exists()
    (tmp_path / "moved.key").rename(key)
    assert key.read_bytes() == before
    key.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        sign_model(model, key)


@pytest.mark.parametrize("size", [0, 100])  # the public key has 113 bytes
def test_a_full_disk_leaves_no_part_of_a_key(tmp_path: Path, size: int) -> None:
    with pytest.raises(OSError, match="too large"), files_up_to(size):
        write_new_key(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []
    write_new_key(tmp_path / "key")


def test_other_files_are_no_keys(tmp_path: Path, key: Path, model: Path) -> None:
    public(key).chmod(0o600)
    with pytest.raises(InputError, match="is no private key in PEM"):
        sign_model(model, public(key))
    sign_model(model, key)
    for name in ("me.key", "best/model.json"):
        with pytest.raises(InputError, match=f"trusted keys: {Path(name).name} is no public key"):
            check_signature(model, tmp_path / name)
    with pytest.raises(InputError, match=r"trusted keys: none\.pub: No such file"):
        check_signature(model, tmp_path / "none.pub")
    with pytest.raises(InputError, match=r"has no \.pub file"):
        check_signature(model, model)


def test_keys_of_openssl_are_read(tmp_path: Path, model: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    key = tmp_path / "ssl.key"
    subprocess.run([program, "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run([program, "pkey", "-in", key, "-pubout", "-out", public(key)], check=True)
    key.chmod(0o600)
    sign_model(model, key)
    assert check_signature(model, public(key)) is not None

    other = tmp_path / "rsa.key"
    subprocess.run([program, "genpkey", "-algorithm", "rsa", "-out", other], check=True)
    other.chmod(0o600)
    with pytest.raises(InputError, match="another algorithm than Ed25519"):
        sign_model(model, other)


def test_a_missing_library_is_told_in_one_line(key: Path, model: Path) -> None:
    start = APART[2].replace(
        "import signal;", "import signal, sys; sys.modules['cryptography'] = None;"
    )

    def command(*arguments: object, trusted: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [APART[0], "-c", start, *map(str, arguments)],
            env=os.environ | ({TRUSTED_KEYS: trusted} if trusted else {}),
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )

    image = model.with_name("x.png")
    image.touch()
    told = (
        "error: signatures: cryptography is not installed; "
        "pip install '.[sign]' in the source folder\n"
    )
    for done in (
        command("sign", model, "--key", key),
        command("predict", model, image, trusted=str(public(key))),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b"{}", b"[" * 100_000, b'{"algorithm": "ed25519"}'],
    ids=lambda one: repr(one[:12]),
)
def test_a_damaged_signature_is_refused(key: Path, model: Path, content: bytes) -> None:
    (model / SIGNATURE).write_bytes(content)
    assert "signature.json is damaged" in refusal(model, public(key))


@pytest.mark.parametrize(
    ("name", "value"),
    [("algorithm", "rsa"), ("key", "0" * 63), ("signature", "A" * 128), ("who", 3), ("more", "x")],
)
def test_a_signature_with_other_values_is_refused(
    key: Path, model: Path, name: str, value: object
) -> None:
    sign_model(model, key)
    values = json.loads((model / SIGNATURE).read_text())
    (model / SIGNATURE).write_text(json.dumps(values | {name: value}))
    assert "signature.json is damaged" in refusal(model, public(key))
