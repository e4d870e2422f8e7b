"""Predict latency and throughput: a trace of requests is replayed on a clock of its own, with the real scheduler and without a model."""
