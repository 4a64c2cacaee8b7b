"""Train image models with human guidance about where to look."""

__version__ = "0.1.0"
