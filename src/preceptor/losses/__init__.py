"""Guided loss, distances between maps, and losses of predictions."""

from preceptor.losses.guided import GuidedLoss, guidance

__all__ = ["GuidedLoss", "guidance"]
