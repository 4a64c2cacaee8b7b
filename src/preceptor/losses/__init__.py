"""Guided loss and distances between maps."""

from preceptor.losses.guided import GuidedLoss, guidance

__all__ = ["GuidedLoss", "guidance"]
