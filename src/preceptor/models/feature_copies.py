"""Copies of features for the layers after them, which may change their input in place."""

from __future__ import annotations

from torch import Tensor


class FeatureCopies:
    """Copies of features that are differentiated, as far as they are needed.

    A function that works in place, such as the ReLU after the features of torchvision's DenseNet,
    would change the features that were kept; without a graph it would fail, since they are then a
    leaf that requires gradients. The first pass tells whether there is such a function.
    """

    def __init__(self) -> None:
        self._needed: bool | None = None  # None = unknown
        self._last: Tensor | None = None

    def of(self, entered: Tensor) -> Tensor:
        """A copy of what enters the layers after the features; itself if they do not change it."""
        if self._needed is False:
            return entered
        copy = entered.clone()
        if self._needed is None:
            self._last = copy
        return copy

    def after_pass(self) -> None:
        """See whether the first copy was changed by the pass."""
        if self._last is not None:
            self._needed = self._last._version > 0
            self._last = None
