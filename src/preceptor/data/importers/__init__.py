"""Published collections, read as they are."""
