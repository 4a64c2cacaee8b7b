"""A source of maps: `maps: {kind: edges}`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32


def edges(paths: Sequence[str], labels: Sequence[str]) -> NDArray[np.float32]:
    """(n, 32, 32) gradient magnitudes of n images, whatever their labels.

    Args:
        paths: Paths of the images.
        labels: Their labels.
    """
    maps = []
    for path in paths:
        with Image.open(path) as image:
            gray = np.asarray(image.convert("L").resize((SIDE, SIDE)), np.float32)
        maps.append(np.hypot(*np.gradient(gray)))
    return np.stack(maps).astype(np.float32)
