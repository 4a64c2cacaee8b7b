"""Signatures of models, and their check against trusted keys.

    best/signature.json     of a model folder, over the content of checksums.json
    fake.onnx.sig           of an exported file, over its checksum

Without trusted keys signatures are not read: a signature proves nothing without the public key.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from preceptor.errors import InputError, is_control
from preceptor.runtime.checksums import (
    CHECKSUMS,
    file_digest,
    files_that_differ,
    read_checksums,
)
from preceptor.runtime.model_paths import check_model_folder
from preceptor.runtime.replace_file import flush_to_disk, replacing

SIGNATURE = "signature.json"
"""File of a model folder with its signature."""
TRUSTED_KEYS = "PRECEPTOR_TRUSTED_KEYS"
"""Environment variable with the default of `trusted_keys`."""

KeyPath = str | os.PathLike[str]
# The first line of what is signed: no signature for another purpose is one of a model.
_PURPOSE = b"preceptor signature of a model, version 1\n"
_LONGEST = 200


@dataclass(frozen=True)
class Signature:
    """Signature of a model.

    Args:
        algorithm: Algorithm of the signature, ed25519.
        key: Fingerprint of the public key, hexadecimal.
        who: Signer, free text of at most 200 characters; it is signed too.
        when: Time of the signing in UTC; it is signed too.
        signature: Signature, 64 bytes hexadecimal.
    """

    algorithm: str
    key: str
    who: str
    when: str
    signature: str

    @classmethod
    def from_json(cls, content: bytes) -> Signature:
        """Signature of a file.

        Raises:
            ValueError: A key is missing, unknown or invalid.
        """
        values = json.loads(content)
        if not isinstance(values, dict) or set(values) != {one.name for one in fields(cls)}:
            raise ValueError("other keys than those of a signature")
        if not all(isinstance(one, str) for one in values.values()):
            raise ValueError("a value is no text")
        found = cls(**values)
        lengths = ((found.key, 64), (found.signature, 128))
        if found.algorithm != "ed25519" or not all(
            re.fullmatch(f"[0-9a-f]{{{length}}}", text) for text, length in lengths
        ):
            raise ValueError("a value is invalid")
        return found

    @property
    def said(self) -> dict[str, str]:
        """What is signed beside the checksums."""
        return {key: value for key, value in asdict(self).items() if key != "signature"}


def signature_file(model: Path) -> Path:
    """File of the signature of a model folder or of an exported file."""
    return model / SIGNATURE if model.is_dir() else model.with_name(f"{model.name}.sig")


def default_trusted_keys() -> Path | None:
    """Trusted keys of the environment variable PRECEPTOR_TRUSTED_KEYS; None if it is not set.

    Raises:
        InputError: It is set and empty, as by a mistake in a script.
    """
    text = os.environ.get(TRUSTED_KEYS)
    if text == "":
        raise InputError(
            f"{TRUSTED_KEYS} is set and empty; name a folder or file of keys, or unset it"
        )
    return None if text is None else Path(text).absolute()


def write_new_key(path: Path) -> str:
    """Write a new private key, which its owner alone can read, and `PATH.pub` with the public one.

    Returns:
        Fingerprint of the public key.

    Raises:
        InputError: One of the files exists, or the library is missing.
    """
    library = _ed25519()
    public = _public_file(path)
    for file in (path, public):
        if file.exists():
            raise InputError(f"{file} exists, and a key is never replaced; name another file")
    made = library.new_key()
    with replacing(public) as partial:
        partial.write_bytes(made.public)
        # Not by replacing(): the file must not exist, and nobody else may read it at any time.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(made.private)
            flush_to_disk(path)
        except BaseException:
            path.unlink()
            raise
    return str(library.fingerprint(library.public_key(made.public)))


def sign_model(model: Path, key: Path, who: str = "") -> Signature:
    """Sign a model whose files match their checksums, and write its signature.

    Args:
        model: Model folder, or exported file.
        key: File of the private key.
        who: Signer, free text.

    Raises:
        InputError: The model has no checksums or does not match them, the key is no private key or
            can be read by others, `who` is too long, or the library is missing.
    """
    if len(who) > _LONGEST or any(map(is_control, who)):
        raise InputError(f"who: one line of at most {_LONGEST} characters; shorten it")
    library = _ed25519()
    checksums = _checksums(model)
    if model.is_dir() and (changed := files_that_differ(model, checksums)):
        raise InputError(
            f"{model}: {changed[0]} does not match its checksum, so that it is not signed; copy "
            "the folder again"
        )
    if os.name != "nt" and key.stat().st_mode & 0o077:
        raise InputError(f"{key}: others can read or write this private key; chmod 600 {key}")
    try:
        private = library.private_key(key.read_bytes())
    except ValueError as error:
        raise InputError(f"{key} {error}; make a key: preceptor sign --new-key FILE") from error
    said = {
        "algorithm": "ed25519",
        "key": library.fingerprint(private.public_key()),
        "who": who,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    made = Signature(**said, signature=private.sign(_message(said, checksums)).hex())
    with replacing(signature_file(model)) as partial:
        partial.write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
    return made


def check_signature(model: Path, trusted_keys: KeyPath | None = None) -> Signature | None:
    """Check that a model is signed with a trusted key.

    That the files match the checksums, which are signed, is checked when they are loaded.

    Args:
        model: Model folder, or exported file.
        trusted_keys: File of a public key, or folder of such files (`.pub`); None = that of the
            environment variable PRECEPTOR_TRUSTED_KEYS. Without either, nothing is checked.

    Returns:
        The signature; None if nothing was checked.

    Raises:
        InputError: The model is not signed, its key is not trusted, the signature is wrong or
            damaged, there are no trusted keys in this place, or the library is missing.
    """
    where = default_trusted_keys() if trusted_keys is None else Path(trusted_keys)
    if where is None:
        return None
    library = _ed25519()
    keys = _trusted(where, library)
    file = signature_file(model)
    try:
        found = Signature.from_json(file.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"{model}: not signed, and only models signed with a trusted key are loaded; "
            "preceptor sign MODEL --key FILE signs it"
        ) from error
    except (ValueError, RecursionError) as error:  # errors of JSON and of UTF-8 too
        raise InputError(f"{model}: {file.name} is damaged; copy it again") from error
    if found.key not in keys:
        raise InputError(
            f"{model}: signed with the key {found.key[:16]}…, which is not a trusted key; add its "
            ".pub file to the trusted keys if it should be"
        )
    message = _message(found.said, _checksums(model))
    if not library.signature_is_right(keys[found.key], bytes.fromhex(found.signature), message):
        signed = CHECKSUMS if model.is_dir() else model.name
        raise InputError(
            f"{model}: the signature is wrong: {signed} or {file.name} was changed after it was "
            "signed; copy both again"
        )
    return found


def _trusted(where: Path, library: ModuleType) -> dict[str, Any]:
    """Trusted public keys by fingerprint.

    Messages name files without their folder: the server shows them to its clients.
    """
    files = sorted(where.glob("*.pub")) if where.is_dir() else [where]
    if not files:
        raise InputError(f"trusted keys: {where.name} has no .pub file; copy the public keys there")
    found = {}
    for file in files:
        try:
            key = library.public_key(file.read_bytes())
        except OSError as error:
            raise InputError(f"trusted keys: {file.name}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(
                f"trusted keys: {file.name} {error}; remove it or copy it again"
            ) from error
        found[library.fingerprint(key)] = key
    return found


def _checksums(model: Path) -> dict[str, str]:
    """Checksums that are signed."""
    if not model.is_dir():
        return {"file": file_digest(model)}
    check_model_folder(model)
    found = read_checksums(model)
    if not found:
        raise InputError(
            f"{model}: {CHECKSUMS} is missing, which is what is signed; copy the folder again, or "
            "write it again: preceptor report STUDY"
        )
    return found


def _message(said: Mapping[str, str], checksums: Mapping[str, str]) -> bytes:
    """Bytes that are signed: the same for the same values, whatever the layout of the files."""
    values = {**said, "checksums": dict(checksums)}
    return _PURPOSE + json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _public_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def _ed25519() -> ModuleType:
    """The module of keys and signatures; its library is imported only now."""
    try:
        from preceptor.runtime import ed25519
    except ImportError as error:
        raise InputError(
            "signatures: cryptography is not installed; pip install '.[sign]' in the source folder"
        ) from error
    return ed25519
