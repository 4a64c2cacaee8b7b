"""Drift of a model in use: predictions of new images against those of validation images."""
