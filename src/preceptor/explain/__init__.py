"""Explanation of single decisions of a model."""
