"""Random models small enough for a unit test, with weights large enough that greedy output varies."""

import copy

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

VOCAB_SIZE = 256
EOS = 7
_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}

CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SIZES),
    "qwen2": Qwen2Config(**_SIZES),
    "qwen3": Qwen3Config(**_SIZES, head_dim=16),
    "mistral-sliding": MistralConfig(**_SIZES, sliding_window=12),
    "gemma2-softcap": Gemma2Config(**_SIZES, head_dim=16, sliding_window=8, attn_logit_softcapping=0.2, attn_implementation="eager"),
    "gpt2": GPT2Config(vocab_size=VOCAB_SIZE, n_embd=48, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=EOS),
}


def make_model(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return the model of ``config``, the same at every call. It has a configuration of its own: the engine changes it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return model


@torch.inference_mode()
def generate(model: PreTrainedModel, prompt: list[int], max_tokens: int) -> list[int]:
    """Return what transformers' own greedy search says after ``prompt``, alone."""
    input_ids = torch.tensor([prompt])
    output = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()
