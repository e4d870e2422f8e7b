"""Start TorchServe around archives, wait until it can answer, stop it without a trace."""
