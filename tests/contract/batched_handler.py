"""The static path as a handler file."""

from handlers import BatchedCausalLMHandler


class StaticHandler(BatchedCausalLMHandler):
    """Nothing of its own."""
