"""Decode steps compiled ahead of time by torch.compile's back end (AOTInductor): in the background of an engine, or for an archive."""
