"""A trained model over a manifest: predictions, scores and maps."""
