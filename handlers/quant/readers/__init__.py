"""One format a file: from a checkpoint's tensors to a QuantizedMatrix."""
