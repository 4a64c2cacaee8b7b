"""Training of one run."""

from preceptor.training.run import train

__all__ = ["train"]
