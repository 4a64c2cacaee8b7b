"""Processes, files and the terminal; independent of models and studies."""
