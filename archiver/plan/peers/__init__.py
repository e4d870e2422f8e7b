"""A plan as flags of other servers: what each calls its share of memory is translated, so that all allocate the same KV cache."""
