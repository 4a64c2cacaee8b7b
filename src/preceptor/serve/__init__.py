"""Trained models behind HTTP: micro-batches, limits, metrics, reload; locally or on Ray Serve."""
