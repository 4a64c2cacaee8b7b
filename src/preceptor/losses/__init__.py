"""The guided loss."""

from preceptor.losses.guided import GuidedLoss, guidance

__all__ = ["GuidedLoss", "guidance"]
