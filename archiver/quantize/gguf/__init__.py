"""Write GGUF files from checkpoints."""
