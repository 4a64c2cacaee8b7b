"""Command `preceptor sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.errors import InputError


def sign(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Model folder, such as best, or exported ONNX file.", show_default=False
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="File of the private key.", show_default=False)
    ] = None,
    who: Annotated[
        str,
        typer.Option(
            help="Name of the signer: free text, part of the signature.", show_default=False
        ),
    ] = "",
    new_key: Annotated[
        Path | None,
        typer.Option(
            help="Write a new private key to this file, and the public key to FILE.pub.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Sign a model, or make a key (--new-key).

    The signature is signature.json in the model folder, or NAME.onnx.sig beside an exported file.
    It is verified when a model is loaded, if PRECEPTOR_TRUSTED_KEYS names public keys.
    """
    from preceptor.runtime.signatures import sign_model, signature_file, write_new_key

    if new_key is not None:
        if model is not None or key is not None:
            raise InputError("--new-key only makes a key; sign the model with a second command")
        made = write_new_key(new_key)
        print(f"wrote {new_key}, which must stay secret, and {new_key}.pub")
        print(f"fingerprint of the public key: {made}")
        return
    if model is None or key is None:
        raise InputError("write preceptor sign MODEL --key FILE, or preceptor sign --new-key FILE")
    if not model.is_dir():
        from preceptor.predictor.sealed_file import read_sealed

        read_sealed(model)
    signature = sign_model(model, key, who)
    print(f"wrote {signature_file(model)}")
    print(f"fingerprint of the public key: {signature.key}")
