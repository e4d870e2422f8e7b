"""Run Llama-like decoders on CUDA GPUs: Triton kernels over paged blocks, and CUDA graphs of the steps of running sequences."""
