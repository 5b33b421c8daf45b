"""A ground truth: every network of a small space trained from scratch, so that what a search finds can be ranked."""
