"""Guided loss, distances between maps, and distillation."""

from preceptor.losses.guided import GuidedLoss, guidance

__all__ = ["GuidedLoss", "guidance"]
