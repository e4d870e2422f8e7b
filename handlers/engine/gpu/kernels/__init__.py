"""Triton kernels of the CUDA runner: one operation a module, compiled when first called; importing a module imports Triton."""
