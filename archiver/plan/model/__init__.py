"""What a checkpoint's configuration and the headers of its weights say about a model, without its weights and without torch."""
