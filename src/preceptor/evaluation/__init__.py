"""Metrics and statistics of scores; numpy only, no model and no file."""
