"""Data: pictures and clips on disk, and the batches that the networks learn from."""
