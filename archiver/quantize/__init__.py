"""Quantize checkpoints, and prove what quality was lost."""
