"""Tensor parallelism: processes that share a model's weights, and compute each step together."""
