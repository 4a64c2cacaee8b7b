"""Results of a study as tables and numbers."""
