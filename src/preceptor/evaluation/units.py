"""Units of resampling: images, or groups of images such as the images of a patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from preceptor.errors import InputError


def unit_codes(groups: npt.ArrayLike | None, images: int) -> npt.NDArray[np.int64]:
    """Codes of the independent units: groups in order of appearance, then images without a group.

    Args:
        groups: (n,) names of groups, None or "" for images without a group; None = no groups.
        images: Number of images n.

    Returns:
        (n,) codes 0, 1, …, without gaps.

    Raises:
        InputError: The numbers of groups and images differ.

    Example:
        >>> unit_codes(["a", "", "b", "a", None], 5)
        array([0, 2, 1, 0, 3])
    """
    if groups is None:
        return np.arange(images)
    names = np.asarray(groups, dtype=object)
    if names.shape != (images,):
        raise InputError(f"{len(names)} groups for {images} images; give one group per image")
    alone = pd.isna(names)
    alone[~alone] = names[~alone] == ""
    codes = np.empty(images, dtype=np.int64)
    codes[~alone] = pd.factorize(names[~alone])[0]
    codes[alone] = codes[~alone].max(initial=-1) + 1 + np.arange(alone.sum())
    return codes
