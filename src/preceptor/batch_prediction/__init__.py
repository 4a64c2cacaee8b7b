"""Prediction for many files into one table, which resumes where it stopped."""
