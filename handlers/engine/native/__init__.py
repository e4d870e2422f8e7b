"""Kernels in C, compiled on the machine that runs them where it has a compiler; never needed."""
