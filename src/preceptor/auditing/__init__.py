"""Questions to a trained classifier by marks: does it rely on what lies outside; its repair."""
