"""Ed25519 keys and signatures, computed by the library cryptography."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)


@dataclass(frozen=True)
class KeyFiles:
    """Contents of the two files of a key.

    Args:
        private: Private key, PEM of PKCS #8.
        public: Public key, PEM of SubjectPublicKeyInfo.
    """

    private: bytes
    public: bytes


def new_key() -> KeyFiles:
    """A new key, from the random numbers of the operating system.

    Example:
        >>> made = new_key()
        >>> key = private_key(made.private)
        >>> fingerprint(key.public_key()) == fingerprint(public_key(made.public))
        True
    """
    key = Ed25519PrivateKey.generate()
    return KeyFiles(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def private_key(content: bytes) -> Ed25519PrivateKey:
    """Private key of a PEM file without a passphrase.

    Raises:
        ValueError: It is of another kind.
    """
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:  # what the library raises for a missing passphrase
        raise ValueError("has a passphrase; write it without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("is no private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is a private key of another algorithm than Ed25519")
    return key


def public_key(content: bytes) -> Ed25519PublicKey:
    """Public key of a PEM file.

    Raises:
        ValueError: It is of another kind.
    """
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is a public key of another algorithm than Ed25519")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 bytes of a public key, hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def signature_is_right(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether a signature (64 bytes) of a message was made with the private key of `key`."""
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
