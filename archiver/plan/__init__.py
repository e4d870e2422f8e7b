"""Predict what a model takes and how fast it is on given hardware, and choose a configuration by that; nothing here imports torch."""
