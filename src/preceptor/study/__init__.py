"""What a study consists of; runs nothing."""
