"""What a study found, on one page."""
