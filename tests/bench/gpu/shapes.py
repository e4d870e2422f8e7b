"""Models of real shapes with random weights, made where they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.bench.models import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHAPES = {
    "8b": Shape(4096, 32, 32, 8, 14336, 128256, max_tokens=8192),  # Llama 3 8B
    "1b": Shape(2048, 16, 32, 8, 8192, 128256, max_tokens=8192),  # Llama 3.2 1B
    "tiny": Shape(256, 2, 4, 2, 512, 600, max_tokens=512),  # to rehearse: on a CPU, or with the kernels of a GPU
}
REHEARSAL = "tiny"


def random_model(shape: Shape, device: torch.device) -> PreTrainedModel:
    """Return a bf16 model that never ends an answer: seconds on a GPU, and nothing passes through the host.

    The embeddings are a matrix of their own, as the 8B's are: a step reads the LM head and a few rows of them.
    """
    from transformers import LlamaForCausalLM

    config = shape.config(tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    with torch.device(device):
        model: PreTrainedModel = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    return model.eval()
