"""Calibration of a trained model on validation, and its distance from images of other kinds."""
