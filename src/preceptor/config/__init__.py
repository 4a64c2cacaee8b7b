"""Configs of runs, and config files."""
