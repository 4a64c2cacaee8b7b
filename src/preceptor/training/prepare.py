"""The id of a run, known before anything runs.

It is a hash of the resolved config, of the rows and files that the run uses, and of NUMERICS.
"""

from __future__ import annotations

from pathlib import Path

from preceptor.config.run import RunConfig
from preceptor.errors import InputError
from preceptor.runtime.result_folder import digest, file_digest

# Raised when the arithmetic of training changes, or a default of RunConfig, so that old runs are
# not taken for new ones.
NUMERICS = 3

# What says where and how a run is computed, but not what it computes.
_NOT_IDENTITY = {"recipe", "device", "cache"}


def run_id(config: RunConfig, rows_hash: str, weights_hash: str) -> str:
    """The id of a run.

    Args:
        config: Resolved. Paths are left out: content stands for them.
        rows_hash: Of `RowHashes.of`.
        weights_hash: Content of the weights file, or "hub" or "none".
    """
    # Defaults are left out, so that a word added later leaves the ids of earlier runs as they
    # were. Hence a default is part of what NUMERICS numbers: who changes one raises it.
    values = config.model_dump(mode="json", exclude_defaults=True)
    for key in ("manifest", "weights", "annotated", "annotated_seed"):
        values.pop(key, None)  # the rows used and the weights' content stand for them
    training = values.pop("training", {})
    values["training"] = {key: value for key, value in training.items() if key not in _NOT_IDENTITY}
    if not config.guided:  # what would have guided does not matter
        for key in ("maps", "guide_classes", "alpha", "alpha_start", "post", "human_post"):
            values.pop(key, None)
        for key in ("distance", "cam_class"):
            values["training"].pop(key, None)
        values["guided"] = False  # a guided run with all defaults would look the same
    elif config.maps.kind == "human":
        values.pop("post", None)  # it guides by no map but human ones
    elif config.maps.human == "replace":
        values.pop("human_post", None)  # it guides by no human map
    if values.get("alpha_start") == config.alpha:
        values.pop("alpha_start")  # it starts where it ends
    for key in ("maps", "soft_labels"):
        values.get(key, {}).pop("path", None)
    return digest([values, rows_hash, weights_hash, NUMERICS])


def weights_digest(weights: str) -> str:
    """What stands for the weights in an id: the content of a file, or the word."""
    if weights in ("hub", "none"):
        return weights
    if not Path(weights).is_file():
        raise InputError(f"weights: {weights} is not a file; use a .safetensors file, hub or none")
    return file_digest(Path(weights))
