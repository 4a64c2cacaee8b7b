"""Metrics and statistics of scores; functions of arrays and tables, without models."""
