"""The engine's Runner over llama.cpp: its kernels compute, ours schedules and samples."""
