"""Read-out of a finished model: the pooling of its CAMs that is best on validation.

The mean over the grid hides small marks. The read-out replaces the pooling of a trained model and
none of its weights, and is chosen on the validation sets; it is offered to all runs alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from preceptor.data.loader import Rows
from preceptor.errors import InputError
from preceptor.models.build import with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import Pool
from preceptor.training.validation import validate

# Candidates, the first one with the highest AUC: the mean, the highest quarter, tenth and twentieth
# of the cells, the highest cell, and log-sum-exp.
POOLS = (Pool(), *(Pool("top", top) for top in (0.25, 0.1, 0.05, 1)), Pool("lse"))


def check_readout(model: GuidedModel) -> None:
    """Check that a model can be read out by other poolings than its own.

    Raises:
        InputError: It has no class activation map that adds up to its logits.
    """
    spec = model.spec
    if spec.cam != "cam" or spec.cam_source != "head_input":
        raise InputError(
            f"{spec.backbone}: readout: auto needs an exact class activation map, which the model "
            "does not have; set readout: none, or use another backbone"
        )


def best_readout(
    model: GuidedModel, sets: Mapping[str, Rows], negatives: str | None = None
) -> GuidedModel:
    """The model with the pooling of the highest AUC on the worst validation set.

    Args:
        model: Trained model; its own pooling wins ties, then the order of `POOLS`.
        sets: Validation sets by name.
        negatives: Set that provides the classes another set lacks, see `validate`.

    Returns:
        The model, or one with the same network and another pooling.
    """
    candidates = [model.spec.pool, *(pool for pool in POOLS if pool != model.spec.pool)]
    best, highest = model, -np.inf
    for pool in candidates:
        read = with_pool(model, pool)
        plain = {name: rows.without_maps() for name, rows in sets.items()}
        measured = validate(read, plain, read, negatives=negatives)
        worst = min(one.auc for one in measured.values())
        if worst > highest:  # False for NaN
            best, highest = read, worst
    return best
