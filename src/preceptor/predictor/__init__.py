"""Trained model in use: images in, scores, decisions and maps out; importable without torch."""
