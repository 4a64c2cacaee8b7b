"""Settings of a run, and config files."""
