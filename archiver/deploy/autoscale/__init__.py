"""Keep the number of a model's replicas where its load wants it: look, decide, scale, again and again."""
