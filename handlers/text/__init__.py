"""Between text and token ids: chat templates, incremental detokenization, stop strings."""
