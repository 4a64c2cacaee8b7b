"""Trained models behind HTTP: micro-batches, limits, metrics."""
