"""Loading of predictors from model folders and exported files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.errors import InputError
from preceptor.predictor.network import Network
from preceptor.predictor.predictor import Predictor
from preceptor.predictor.reference import Reference
from preceptor.predictor.referenced_network import ReferencedNetwork
from preceptor.runtime.checksums import file_digest

if TYPE_CHECKING:
    from preceptor.config.training import Precision


def load(
    model: str | os.PathLike[str],
    *,
    threshold: str | float | None = None,
    device: str = "auto",
    precision: Precision = "32-true",
    batch_size: int | None = None,
    workers: int | None = None,
) -> Predictor:
    """Load a trained model for use.

    Args:
        model: Model folder, such as `best`, or ONNX file of `preceptor export`.
        threshold: Threshold of the decision: the name of a rule (eer, fdr5%, bpcer1%), or a number;
            None = that of the export for an exported file, else eer if the model has it, else the
            decision is the most probable class.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        precision: 32-true, in which thresholds are fixed; bf16-mixed or 16-mixed.
        batch_size: Number of images per pass; None = chosen by a short probe when many images are
            predicted.
        workers: Number of threads that decode; None = one per core.

    Raises:
        InputError: The path is no model folder and no exported file, the model is damaged, or a
            setting is invalid.
    """
    path = Path(model)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 or more")
    network = _network(path, device, precision, batch_size)
    if (reference := _reference(path, network)) is not None:
        network = ReferencedNetwork(network, reference)
    return Predictor(
        network, threshold=threshold, batch_size=batch_size, workers=workers, reference=reference
    )


def files_digest(model: Path) -> str:
    """Hash of the files of a model."""
    found = hashlib.blake2b(digest_size=10)
    files = [*model.glob("model.*"), *model.glob("reference.*")] if model.is_dir() else [model]
    for file in sorted(files):
        found.update(file_digest(file).encode())
    return found.hexdigest()


def _network(path: Path, device: str, precision: Precision, batch_size: int | None) -> Network:
    """Network of a model; its library is imported only now."""
    if path.is_dir() or path.suffix.lower() != ".onnx":
        from preceptor.predictor.torch_network import TorchNetwork

        return TorchNetwork.open(path, device=device, precision=precision, batch_size=batch_size)
    if precision != "32-true":
        raise InputError(f"{path}: precision is {precision}; an exported file has its own, 32-true")
    if path.exists() and not path.is_file():  # a pipe, of which each reading has another content
        raise InputError(f"{path}: it is no regular file; name a file of preceptor export")
    try:
        from preceptor.predictor.onnx_network import OnnxNetwork
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: {error.name} is not installed; pip install '.[onnx]' in the source folder"
        ) from error
    return OnnxNetwork(path, device=device, batch_size=batch_size)


def _reference(path: Path, network: Network) -> Reference | None:
    """Reference of a model folder; None if it has none, as exported files."""
    if not path.is_dir():
        return None
    from preceptor.predictor.reference_files import find_reference

    return find_reference(path, network.info.positive is not None)
