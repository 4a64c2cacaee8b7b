"""Guided loss, distances between maps, and distillation."""

from preceptor.losses.guidance_term import guidance
from preceptor.losses.guided import GuidedLoss

__all__ = ["GuidedLoss", "guidance"]
