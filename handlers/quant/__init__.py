"""Quantization formats: what they need, how they are recognised, and how their tensors are read."""
