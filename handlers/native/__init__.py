"""Kernels in C for this very processor, and the matrices that they multiply."""
