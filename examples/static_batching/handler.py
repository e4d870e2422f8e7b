"""Serve with TorchServe's own dynamic batching: requests wait for each other, then ``model.generate`` runs once for all of them."""

from handlers import BatchedCausalLMHandler


class StaticBatchingHandler(BatchedCausalLMHandler):
    """The batch size and the delay are TorchServe's, in model-config.yaml."""
