"""Manifests, images and batches."""
