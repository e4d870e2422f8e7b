"""Speculative decoding: guess several tokens ahead, check them in one step, keep those that would have come anyway."""
