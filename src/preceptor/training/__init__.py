"""Training of one run: `preceptor.training.run.train`."""
