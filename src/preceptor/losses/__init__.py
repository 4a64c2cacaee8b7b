"""Guided loss, distances between maps, and guidance methods."""

from preceptor.losses.guided import GuidedLoss

__all__ = ["GuidedLoss"]
