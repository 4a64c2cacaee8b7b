"""Loss of predictions alone: consistency outside the map.

Consistency is that of the predictions for an image and for its version changed outside its map:

    K_k = D_KL(p(x_k) ‖ p(x'_k)),    L + λ · 1/K Σ_k v_k K_k

x' is the image in which `preceptor.data.augment` has changed what the map leaves out, and L the
guided loss of x'. The gradient flows through both predictions: that of the unchanged image may not
depend on what was changed. Images that were not changed have K_k = 0.

The divergence is that of A. A. Ismail, H. Corrada Bravo, S. Feizi, "Improving Deep Learning
Interpretability by Saliency Guided Training", NeurIPS 2021. Unlike a squared difference of logits,
it does not depend on their common offset, and it is the same for heads with one logit. J. Viviano,
B. Simpson, F. Dutil, Y. Bengio, J. P. Cohen, "Saliency is a Possible Red Herring When Diagnosing
Poor Generalization", ICLR 2021 (ActDiff), compare features instead of predictions; C. R. Crum et
al., arXiv 2511.12744 (SAGE), embeddings of versions with and without what the map marks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from preceptor.saliency.cam import binary_logits


def inconsistency(
    unchanged: Tensor, changed: Tensor, which: Tensor, sample_weight: Tensor | None = None
) -> Tensor:
    """Divergence of the predictions for each image.

    Args:
        unchanged: (B, C) logits of the images; (B, 1) are single logits of class 1 against class 0.
        changed: (B, C) logits of the images changed outside their maps.
        which: (B,) bool, images that were changed.
        sample_weight: (B,) v_k > 0; None = 1.

    Returns:
        (B,) float32 or wider divergences ≥ 0; exactly 0 for images that were not changed.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> same, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
        >>> inconsistency(same, other, torch.tensor([True]))
        tensor([0.4338])
    """
    if unchanged.shape != changed.shape or which.shape != unchanged.shape[:1]:
        raise ValueError(
            f"logits {tuple(unchanged.shape)} and {tuple(changed.shape)} must be equal in shape, "
            f"and which {tuple(which.shape)} (B,)"
        )
    kind = torch.promote_types(unchanged.dtype, torch.float32)
    log_p, log_q = (binary_logits(one.to(kind)).log_softmax(1) for one in (unchanged, changed))
    found = torch.where(which, (log_p.exp() * (log_p - log_q)).sum(1).clamp_min(0), 0)
    return found if sample_weight is None else found * sample_weight
