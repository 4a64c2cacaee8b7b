"""Processes, files and the terminal; knows nothing of models or studies."""
