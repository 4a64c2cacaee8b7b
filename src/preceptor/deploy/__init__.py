"""A trained model in use: prediction, export, calibration, explanation, HTTP server."""
