"""Random models small enough for a unit test, with weights large enough that greedy output varies."""

import copy

import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
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
    "gemma3-local-global": Gemma3TextConfig(
        **_SIZES, head_dim=16, sliding_window=8, layer_types=["sliding_attention", "sliding_attention", "full_attention"]
    ),
    "phi3": Phi3Config(**_SIZES),
    "mixtral-experts": MixtralConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2),
    "gpt-neox": GPTNeoXConfig(**{**_SIZES, "num_key_value_heads": 4}),
    "opt": OPTConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=48,
        word_embed_proj_dim=48,
        ffn_dim=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
    ),  # fmt: skip
    "gpt2": GPT2Config(vocab_size=VOCAB_SIZE, n_embd=48, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=EOS),
}

FALCON = FalconConfig(
    vocab_size=VOCAB_SIZE, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, multi_query=True, alibi=False,
    max_position_embeddings=256, bos_token_id=1, eos_token_id=EOS, pad_token_id=0,
)  # fmt: skip
MAMBA = MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=48, num_hidden_layers=3, bos_token_id=1, eos_token_id=EOS, pad_token_id=0)


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
