"""Checkpoints on disk: what they say about themselves, and how they become a model in memory."""
