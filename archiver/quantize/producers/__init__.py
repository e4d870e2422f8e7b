"""One library a file: llmcompressor, bitsandbytes, torchao, gguf."""
